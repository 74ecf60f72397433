// All methods at all budgets, side by side; each is a button that shows it large.

function gallery(comparison, state, change) {
  const shown = [];
  const rows = comparison.methods.map((method) => {
    const budgets = comparison.budgets.filter((budget) => budget !== FULL.budget);
    const cards = budgets.map((budget) => card(comparison, method, budget, change));
    shown.push(...cards);
    return el(
      "div",
      { class: "row" },
      el("h3", {}, method),
      toolbar(method, "thumbs", cards.map((one) => one.button)),
    );
  });
  for (const row of rows) row.style.setProperty("--count", comparison.budgets.length - 1);
  const stale = new Set();
  const visible = new Set();
  const paint = (one) => {
    const picture = comparison.pictures[state.picture];
    const sheet = picture.sheets[state.sheet];
    one.canvas.style.setProperty("--ratio", ratioOf(picture, sheet));
    if (!one.canvas.clientWidth) return;
    const shares = comparison.shares(one.run, "visual", state.layer, state.head);
    paintKept(one.canvas, comparison.images[state.picture], picture, sheet, shares, true);
    stale.delete(one);
  };
  const drawn = shown.filter((one) => one.canvas);
  const repaint = (all) => {
    for (const one of drawn) {
      if (all || visible.has(one)) paint(one);
      else stale.add(one);
    }
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const one = drawn.find(({ canvas }) => canvas === target);
      visible[isIntersecting ? "add" : "delete"](one);
      if (isIntersecting && stale.has(one)) paint(one);
    }
  });
  for (const { canvas } of drawn) watch.observe(canvas);
  change.on((what) => {
    for (const { button, method, budget } of shown) {
      const isOn = budget === state.budget && method === state.method;
      button.setAttribute("aria-pressed", String(isOn));
    }
    if (["layer", "head", "picture", "sheet", "start"].some((name) => what.has(name))) {
      repaint(what.has("start"));
    }
  });
  const box = section(
    "gallery",
    "Side by side",
    "Every method at every budget, for the layer and head chosen above. Choose one to see it large.",
    ...rows,
  );
  new ResizeObserver(() => repaint(false)).observe(box);
  return box;
}

function card(comparison, method, budget, change) {
  const run = comparison.run(method, budget);
  const canvas = run.error ? null : el("canvas", { "aria-hidden": "true" });
  const answer = run.error ? "could not be run" : comparison.answer(run) || "(nothing)";
  const isGood = !run.error && comparison.isSame(run);
  const says = isGood ? "same answer as the full cache" : "another answer than the full cache";
  const button = el(
    "button",
    {
      type: "button", class: "thumb",
      "aria-label": `${method}, ${budget}: ${answer}${run.error ? "" : `, ${says}`}`,
      onclick: () => change({ method, budget }),
    },
    canvas ?? el("span", { class: "none" }, "–"),
    el("span", { class: "under" }, el("span", { class: "budget" }, budget), sign(isGood)),
    el("span", { class: "says" }, answer),
  );
  return { run, button, canvas, method, budget };
}
