// What is left as less is kept: a line for each method, told apart by marks and dashes, not colour.

const DASHES = ["", "7 4", "2 4", "10 3 2 3", "1 5"];
const MARKS = [
  (x, y) => svg("circle", { cx: x, cy: y, r: 5 }),
  (x, y) => svg("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9 }),
  (x, y) => svg("path", { d: `M${x} ${y - 6} L${x + 6} ${y + 5} L${x - 6} ${y + 5} Z` }),
  (x, y) => svg("path", { d: `M${x} ${y - 6.5} L${x + 6.5} ${y} L${x} ${y + 6.5} L${x - 6.5} ${y} Z` }),
  (x, y) => svg("path", { d: `M${x} ${y + 6} L${x + 6} ${y - 5} L${x - 6} ${y - 5} Z` }),
];
const dashOf = (i) => DASHES[(i + Math.floor(i / MARKS.length)) % DASHES.length]; // marks come again
const FRAME = { left: 72, right: 600, top: 16, bottom: 214 };

function curve(comparison) {
  const measured = comparison.runs.filter((run) => run.fidelity);
  if (!measured.length) return null;
  const budgets = comparison.budgets;
  const step = (FRAME.right - FRAME.left - 56) / Math.max(budgets.length - 1, 1);
  const x = (budget) => FRAME.left + 28 + step * budgets.indexOf(budget);
  const y = (share) => FRAME.bottom - share * (FRAME.bottom - FRAME.top);
  const lines = comparison.methods.map((method, i) => {
    const runs = measured.filter((run) => run.method === method);
    const points = runs.map((run) => ({ x: x(run.budget), y: y(run.fidelity.mass), run }));
    points.push({ x: x(FULL.budget), y: y(1), run: FULL });
    points.sort((a, b) => a.x - b.x);
    return series(comparison, points, i);
  });
  const drawing = svg(
    "svg",
    { viewBox: "0 0 616 250", class: "curve", role: "img", "aria-label": spokenCurve(comparison, measured) },
    [0, 0.25, 0.5, 0.75, 1].map((share) => [
      svg("line", { class: "rule", x1: FRAME.left, x2: FRAME.right, y1: y(share), y2: y(share) }),
      svg("text", { x: FRAME.left - 8, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`),
    ]),
    budgets.map((name) => svg("text", { x: x(name), y: FRAME.bottom + 24, "text-anchor": "middle" }, name)),
    lines,
  );
  return section(
    "curve",
    "What is still looked at",
    "The share of the answer’s attention to the prompt that falls on tokens which are kept. "
      + "A filled mark gives the same answer as the full cache, a hollow one another.",
    drawing,
    names(comparison),
  );
}

function series(comparison, points, i) {
  const path = points.map((point, n) => `${n ? "L" : "M"}${point.x} ${point.y}`).join(" ");
  const mark = MARKS[i % MARKS.length];
  return svg(
    "g",
    { class: `series s${i}` },
    svg("path", { class: "line", d: path, "stroke-dasharray": dashOf(i) }),
    points.map((point) => {
      const shape = mark(point.x, point.y);
      shape.classList.add(comparison.isSame(point.run) ? "filled" : "hollow");
      return shape;
    }),
  );
}

function names(comparison) {
  return el("p", { class: "names" }, comparison.methods.map((method, i) => {
    const shape = MARKS[i % MARKS.length](20, 8);
    shape.classList.add("filled");
    const line = svg("path", { class: "line", d: "M0 8 L40 8", "stroke-dasharray": dashOf(i) });
    const sample = svg("svg", { viewBox: "0 0 40 16", width: 40, height: 16, "aria-hidden": "true" },
      svg("g", { class: `series s${i}` }, line, shape));
    return el("span", { class: "key" }, sample, method);
  }));
}

function spokenCurve(comparison, measured) {
  const told = comparison.methods.map((method) => {
    const runs = measured.filter((run) => run.method === method);
    return `${method}: ${runs.map((run) => `${percent(run.fidelity.mass)} at ${run.budget}`).join(", ")}`;
  });
  return `Share of attention kept. ${told.join(". ")}.`;
}
