// What was asked so far, as small pictures; each shows itself again.
function tried(comparison, state, choose) {
  const shown = [];
  const methods = comparison.methods.filter((method) => comparison.done.some((run) => run.method === method));
  const rows = methods.map((method) => {
    const budgets = comparison.budgets.filter((budget) => budget !== FULL.budget && comparison.has(method, budget));
    const cards = budgets.map((budget) => card(comparison, method, budget, choose));
    shown.push(...cards);
    return el("div", { class: "row" }, el("h3", {}, method), toolbar(method, "thumbs", cards.map((one) => one.button)));
  });
  const most = Math.max(5, ...rows.map((row) => row.querySelectorAll(".thumb").length));
  for (const row of rows) row.style.setProperty("--count", Math.min(most, 8));
  const box = section("tried", "Tried so far", "Choose one to see it again; nothing is asked anew.", ...rows);
  const paint = () => {
    const picture = comparison.pictures[state.picture];
    const sheet = picture.sheets[state.sheet];
    for (const { run, canvas, button, method, budget } of shown) {
      button.setAttribute("aria-pressed", String(method === state.method && budget === state.budget));
      if (!canvas) continue;
      canvas.style.setProperty("--ratio", ratioOf(picture, sheet));
      if (!canvas.clientWidth) continue;
      const shares = comparison.shares(run, "visual", state.layer, state.head);
      paintKept(canvas, comparison.images[state.picture], picture, sheet, shares, true);
    }
  };
  new ResizeObserver(paint).observe(box);
  return { box, paint };
}
