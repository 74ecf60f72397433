// Puts the page together; everything follows one state, and says what has changed in it.

function changes(state) {
  const listeners = [];
  let waiting = null;
  const tell = () => {
    const what = waiting;
    waiting = null;
    for (const listener of listeners) listener(what);
  };
  const change = (next) => {
    Object.assign(state, next);
    if (!waiting) {
      waiting = new Set();
      requestAnimationFrame(tell);
    }
    for (const name of Object.keys(next)) waiting.add(name);
  };
  change.on = (listener) => listeners.push(listener);
  change.now = (what) => {
    for (const listener of listeners) listener(new Set([what]));
  };
  return change;
}

// The budget to begin with: the smallest at which some method still answers like the full cache.
function beginning(comparison) {
  const { budgets, methods } = comparison;
  const all = budgets.flatMap((budget) => methods.map((method) => comparison.run(method, budget)));
  const runs = all.filter((run) => !run.full && !run.error);
  const { budget, method } = runs.find((run) => comparison.isSame(run)) ?? runs[0];
  return { budget, method };
}

async function loadedImages(comparison) {
  const load = async (picture) => {
    if (!picture.src) return null;
    const image = new Image();
    image.src = picture.src;
    await image.decode();
    return image;
  };
  return Promise.all(comparison.pictures.map(load));
}

function brand() {
  const rings = [11, 7, 3].map((r, i) => svg("circle", { cx: 12, cy: 12, r, class: `ring r${i}` }));
  const glyph = svg("svg", { viewBox: "0 0 24 24", width: 22, height: 22, "aria-hidden": "true" }, rings);
  return el("p", { class: "brand" }, glyph, "Foveate");
}

function header(comparison) {
  const tokens = `${number(comparison.visual)} visual tokens, ${plural(comparison.layers.length, "layer")}`;
  return el(
    "header",
    {},
    brand(),
    el("p", { class: "about" }, el("span", {}, "model: ", el("bdi", {}, comparison.model)), el("span", {}, tokens)),
  );
}

// Draws again when the colours change: at night, and on paper.
function recoloured(draw, signal) {
  night.addEventListener("change", draw, { signal });
  for (const [name, isPrint] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(name, () => {
      printing = isPrint;
      draw();
    }, { signal });
  }
}

let current = null; // ends what the last comparison listens to

// Shows a comparison in an element in place of the last one; `start` is what to choose first.
async function show(data, root, start = {}) {
  const comparison = new Comparison(data);
  comparison.images = await loadedImages(comparison);
  current?.abort();
  current = new AbortController();
  const { signal } = current;
  const none = { layer: EVERY, head: EVERY, picture: 0, sheet: 0, looks: false };
  const state = { ...none, ...beginning(comparison), ...start };
  const change = changes(state);
  const panel = el(
    "div",
    { class: "panel" },
    question(comparison),
    answer(comparison, state, change),
    controls(comparison, state, change),
    facts(comparison, state, change),
  );
  root.replaceChildren(
    header(comparison),
    el("div", { class: "screen" }, stage(comparison, state, change), panel),
    gallery(comparison, state, change),
    el("div", { class: "pair" }, ...[layerBars(comparison, state, change), curve(comparison)].filter(Boolean)),
    prompt(comparison, state, change),
    numbers(comparison),
    el("footer", {}, el("p", {}, `Made by foveate report, version ${comparison.version}. This file needs no network.`)),
  );
  change.now("start");
  recoloured(() => change.now("start"), signal);
  return { comparison, state, change };
}

const island = document.getElementById("comparison");
window.foveate = { show };
if (island) {
  const root = document.getElementById("page");
  const wrong = (error) => root.replaceChildren(el("p", { class: "error" }, `This page cannot be shown: ${error.message}`));
  window.foveate.shown = show(JSON.parse(island.textContent), root).catch(wrong);
}
