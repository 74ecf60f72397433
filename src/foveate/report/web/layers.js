// How a budget is spread over the layers: a bar for each, which chooses it.

function layerBars(comparison, state, change) {
  const many = comparison.layers.length > 16 ? "layers many" : "layers";
  let box = el("div");
  const note = el("p", { class: "caption" });
  const details = el("details", { class: "quiet" }, el("summary", {}, "The layers as a table"));
  const table = scroller("Table of the layers");
  details.append(table);
  change.on((what) => {
    const run = comparison.run(state.method, state.budget);
    if (what.has("start") || what.has("method") || what.has("budget")) {
      const hadFocus = box.contains(document.activeElement);
      const made = toolbar("Layers", many, bars(comparison, run, change));
      box.replaceWith(made);
      box = made;
      if (hadFocus) box.children[Math.max(state.layer, 0)]?.focus();
      table.replaceChildren(layerTable(comparison, run));
    }
    [...box.children].forEach((bar, i) => bar.setAttribute("aria-pressed", String(i === state.layer)));
    note.textContent = spread(comparison, run);
  });
  return section(
    "layers",
    "Where the budget goes",
    "Visual tokens that each layer keeps, on average over its heads. Choose a layer to see it above; "
      + "choose it again for all of them.",
    box, note, details,
  );
}

function keptIn(comparison, run, i) {
  return run.full ? comparison.visual : run.error ? 0 : run.layers[i].visual;
}

function bars(comparison, run, change) {
  const values = comparison.layers.map((_, i) => keptIn(comparison, run, i));
  const most = Math.max(...values, 1);
  return comparison.layers.map((layer, i) => {
    const fill = el("i", {});
    fill.style.height = `${(100 * values[i]) / most}%`;
    return el(
      "button",
      {
        type: "button", class: "layer",
        "aria-label": `layer ${layer}: ${plural(values[i], "visual token")}`,
        title: `layer ${layer}: ${plural(values[i], "visual token")}`,
        onclick: (event) => {
          const isOn = event.currentTarget.getAttribute("aria-pressed") === "true";
          change({ layer: isOn ? EVERY : i });
        },
      },
      el("span", { class: "value" }, kept(values[i])),
      el("span", { class: "well" }, fill),
      el("span", { class: "name" }, layer),
    );
  });
}

function spread(comparison, run) {
  if (run.full || run.error) return "";
  const values = run.layers.map((layer) => layer.visual);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) return `Every layer keeps ${plural(low, "visual token")}.`;
  if (kept(low) === kept(high)) return `Every layer keeps about ${plural(low, "visual token")}.`;
  return `Between ${kept(low)} and ${plural(high, "visual token")} a layer.`;
}

function layerTable(comparison, run) {
  if (run.error) return el("p", {}, "This run failed, and no layer keeps anything.");
  if (run.full) return el("p", {}, "Every layer keeps everything.");
  const names = [...new Set(run.layers.flatMap((layer) => Object.keys(layer.numbers)))];
  const heads = ["layer", "visual", "text", "stored as", "bytes", "of", ...names];
  const rows = run.layers.map((layer) => [
    layer.layer, kept(layer.visual), kept(layer.text), layer.storage,
    size(layer.bytes), size(layer.bytes_full),
    ...names.map((name) => (name in layer.numbers ? number(layer.numbers[name], 3) : "–")),
  ]);
  return grid(`Layers of ${run.method} at ${run.budget}`, heads, rows);
}

// A table of words and numbers whose first column names the rows.
function grid(title, heads, rows) {
  return el(
    "table",
    {},
    el("caption", { class: "hidden" }, title),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map(([first, ...rest]) =>
      el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, cell))))),
  );
}
