// The large picture, what it says about a patch, and the same as a table.

const KEYS = "Arrow keys go from patch to patch.";

function stage(comparison, state, change) {
  const canvas = el("canvas", {
    class: "sight",
    id: "sight",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "map of patches",
    "aria-description": KEYS,
    onkeydown: (event) => moved(event),
    onpointermove: (event) => pointed(event),
    onpointerdown: (event) => pointed(event),
    onpointerleave: (event) => {
      if (event.pointerType !== "touch") point(null); // a finger that is lifted has chosen
    },
    onfocus: () => draw(),
    onblur: () => leave(),
  });
  const caption = el("p", { class: "caption", id: "caption" });
  const said = el("p", { class: "hidden", "aria-live": "polite" }); // of patches that keys go to
  const table = scroller("Table of the patches");
  const details = el(
    "details",
    { class: "quiet table", ontoggle: () => tabled() },
    el("summary", {}, "The patches as a table"),
    table,
  );
  let place = null;

  const sheet = () => comparison.pictures[state.picture].sheets[state.sheet];
  const picture = () => comparison.pictures[state.picture];

  function draw() {
    const run = comparison.run(state.method, state.budget);
    const shares = comparison.shares(run, "visual", state.layer, state.head);
    const image = comparison.images[state.picture];
    canvas.style.setProperty("--ratio", ratioOf(picture(), sheet()));
    if (state.looks) {
      const looks = comparison.looked(state.layer);
      paintLooks(canvas, image, picture(), sheet(), shares, looks);
    } else paintKept(canvas, image, picture(), sheet(), shares);
    if (place) paintCursor(canvas, sheet(), place);
    canvas.setAttribute("aria-label", described(comparison, state, run, shares));
    caption.textContent = place ? toldOf(comparison, state, place, shares) : about(run, shares);
    tabled(shares);
  }

  function about(run, shares) {
    const text = described(comparison, state, run, shares);
    return canvas.matches(":focus-visible") ? `${text} ${KEYS}` : text;
  }

  function leave() {
    place = null;
    said.textContent = "";
    draw();
  }

  function tabled() {
    if (!details.open) return;
    const run = comparison.run(state.method, state.budget);
    const shares = comparison.shares(run, "visual", state.layer, state.head);
    table.replaceChildren(...sheet().views.map((view) => patchTable(view, shares)));
  }

  function point(next) {
    if (!next && !place) return;
    place = next;
    draw();
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * canvas.width;
    const y = ((event.clientY - box.top) / box.height) * canvas.height;
    for (const cell of cellsOf(sheet(), canvas.width, canvas.height)) {
      const isHere = x >= cell.x && x < cell.x + cell.width && y >= cell.y && y < cell.y + cell.height;
      if (!isHere) continue;
      const isSame = place && place.view === cell.view && place.row === cell.row;
      if (!isSame || place.column !== cell.column) point(cell);
      return;
    }
    point(null);
  }

  function moved(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") point(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const view = place?.view ?? sheet().views[0];
    const [down, right] = steps[event.key];
    const row = place ? place.row + down : Math.floor(view.rows / 2);
    const column = place ? place.column + right : Math.floor(view.columns / 2);
    if (row < 0 || column < 0 || row >= view.rows || column >= view.columns) return;
    point({ view, row, column, token: view.cells[row * view.columns + column] });
    said.textContent = caption.textContent;
  }

  new ResizeObserver(() => draw()).observe(canvas);
  const notes = comparison.notes.map((note) => el("p", { class: "caption" }, note));
  const chips = sheetChoice(comparison, state, change);
  const parts = [chips, canvas, caption, said, legend(comparison, state, change), notes, details];
  change.on((what) => {
    if (what.has("picture") || what.has("sheet")) place = null;
    draw();
  });
  return el("figure", { class: "stage" }, parts);
}

function placeName(comparison, state) {
  const run = comparison.run(state.method, state.budget);
  const layer = state.layer === EVERY ? null : `layer ${comparison.layers[state.layer]}`;
  const head = state.head === EVERY || comparison.heads(run) === 1 ? null : `head ${state.head}`;
  return [layer, head].filter(Boolean).join(", ");
}

function described(comparison, state, run, shares) {
  const where = placeName(comparison, state);
  const text = `${kept(sum(shares))} of ${number(comparison.visual)} visual tokens are kept`;
  if (run.full) return `Full cache: all ${number(comparison.visual)} visual tokens are kept.`;
  if (run.error) return `${run.method} at ${run.budget} could not be run.`;
  if (where) return `${run.method}, ${run.budget}, ${where}: ${text}.`;
  return `${run.method}, ${run.budget}: ${text}, on average over layers and heads.`;
}

function toldOf(comparison, state, place, shares) {
  const at = `Row ${place.row + 1}, column ${place.column + 1}`;
  const name = comparison.pictures[state.picture].sheets[state.sheet].views.length > 1;
  const start = name ? `${place.view.name}, ${at.toLowerCase()}` : at;
  if (place.token < 0) return `${start}: no token.`;
  const share = shares[place.token];
  const every = state.head === EVERY ? "layers and heads" : "layers";
  const all = state.layer === EVERY ? every : "its heads";
  const words = share >= 1 ? "kept everywhere" : share <= 0 ? "not kept" : `kept in ${percent(share)} of ${all}`;
  if (!comparison.looks) return `${start}: ${words}.`;
  return `${start}: ${words}; gets ${percent(comparison.looked(state.layer)[place.token])} of the looks at the prompt.`;
}

function patchTable(view, shares) {
  const columns = [...Array(view.columns).keys()];
  const rows = [...Array(view.rows).keys()];
  const cell = (row, column) => {
    const token = view.cells[row * view.columns + column];
    return el("td", {}, token < 0 ? "" : number(100 * shares[token]));
  };
  return el(
    "table",
    { class: "patches" },
    el("caption", {}, `${view.name}: per cent of layers and heads that keep each patch`),
    el("thead", {}, el("tr", {}, el("td"), columns.map((c) => el("th", { scope: "col" }, c + 1)))),
    el("tbody", {}, rows.map((r) => {
      return el("tr", {}, el("th", { scope: "row" }, r + 1), columns.map((c) => cell(r, c)));
    })),
  );
}

const MANY = [["dotted", "kept by some"], ["outlined", "by half or more"], ["hatched", "by none"]];
const ONE = [["outlined", "kept"], ["hatched", "not kept"]];
const LOOKS = [["disc", "looked at, and kept"], ["ring", "looked at, but not kept"]];

function legend(comparison, state, change) {
  const keys = el("span", { class: "keys" });
  const looks = el(
    "button",
    { type: "button", class: "switch", id: "looks", onclick: () => change({ looks: !state.looks }) },
    "Where the answer looks",
  );
  change.on(() => {
    looks.setAttribute("aria-pressed", String(state.looks));
    const one = comparison.isOne(comparison.run(state.method, state.budget), state.layer, state.head);
    keys.replaceChildren(...(state.looks ? LOOKS : one ? ONE : MANY).map(([kind, text]) => key(kind, text)));
  });
  return el("div", { class: "legend" }, keys, comparison.looks ? looks : null);
}

function key(kind, text) {
  return el("span", { class: "key" }, el("i", { class: `swatch ${kind}`, "aria-hidden": "true" }), text);
}

function sheetChoice(comparison, state, change) {
  const box = el("div", { class: "chips" });
  const chip = (text, isOn, to) =>
    el("button", { type: "button", class: "chip", "aria-pressed": String(isOn), onclick: () => change(to) }, text);
  change.on(() => {
    const { pictures } = comparison;
    const { sheets } = pictures[state.picture];
    const several = pictures.length > 1 ? pictures : [];
    box.replaceChildren(
      ...several.map((_, i) => chip(`Picture ${i + 1}`, i === state.picture, { picture: i, sheet: 0 })),
      ...(sheets.length > 1 ? sheets : []).map((one, i) => chip(one.name, i === state.sheet, { sheet: i })),
    );
    box.hidden = !box.children.length;
  });
  return box;
}
