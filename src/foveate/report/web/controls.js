// What can be chosen: a method, its budget, a layer, a head.

function controls(comparison, state, change) {
  return el(
    "div",
    { class: "controls" },
    comparison.methods.length > 1 ? methodChoice(comparison, state, change) : null,
    budgetSlider(comparison, state, change),
    layerSlider(comparison, state, change),
    headSlider(comparison, state, change),
  );
}

function methodChoice(comparison, state, change) {
  const inputs = comparison.methods.map((method) =>
    el("input", {
      type: "radio", name: "method", value: method, id: `method-${method}`,
      onchange: () => change({ method }),
    }),
  );
  change.on(() => {
    for (const input of inputs) input.checked = input.value === state.method;
  });
  return el(
    "fieldset",
    { class: "methods" },
    el("legend", {}, "Method"),
    el("div", { class: "segments" }, inputs.map((input) => [input, el("label", { for: input.id }, input.value)])),
  );
}

// A slider with a name, what it stands at in words, and marks at its places.
function slider(id, name, most, chosen, onto, ticks = []) {
  const value = el("output", { for: id, "aria-live": "off" }); // the slider says it
  const input = el("input", {
    type: "range", id, min: "0", max: String(most), step: "1",
    oninput: (event) => onto(Number(event.currentTarget.value)),
  });
  const marks = el("div", { class: "ticks", "aria-hidden": "true" }, ticks.map((tick) => el("span", {}, tick)));
  const box = el("div", { class: "slider" }, el("label", { for: id }, name), value, input, ticks.length ? marks : null);
  const show = (at, text, spoken = text) => {
    input.value = String(at);
    input.style.setProperty("--at", most ? at / most : 0);
    input.setAttribute("aria-valuetext", spoken);
    value.textContent = text;
  };
  return { box, input, marks, show };
}

function budgetSlider(comparison, state, change) {
  const { budgets } = comparison;
  const onto = (at) => change({ budget: budgets[at] });
  const made = slider("budget", "Kept", budgets.length - 1, 0, onto, budgets);
  made.marks.classList.toggle("many", budgets.length > 6);
  change.on(() => {
    const run = comparison.run(state.method, state.budget);
    const at = budgets.indexOf(state.budget);
    made.show(at, state.budget, spokenBudget(comparison, state, run));
    [...made.marks.children].forEach((mark, i) => mark.classList.toggle("on", i === at));
  });
  return made.box;
}

function spokenBudget(comparison, state, run) {
  if (run.error) return `${state.budget}, could not be run`;
  if (run.full) return "the full cache";
  return `${state.budget}, ${kept(run.visual_kept)} of ${number(comparison.visual)} visual tokens`;
}

function layerSlider(comparison, state, change) {
  const { layers } = comparison;
  const made = slider("layer", "Layer", layers.length, 0, (at) => change({ layer: at - 1 }));
  change.on(() => {
    const text = state.layer === EVERY ? `all ${layers.length}` : `${layers[state.layer]}`;
    made.show(state.layer + 1, text, state.layer === EVERY ? "all layers" : `layer ${text}`);
  });
  return made.box;
}

function headSlider(comparison, state, change) {
  const most = Math.max(...comparison.runs.map((run) => run.heads ?? 1));
  if (most === 1) return null;
  const made = slider("head", "Head", most, 0, (at) => change({ head: at - 1 }));
  change.on(() => {
    const own = comparison.heads(comparison.run(state.method, state.budget)) > 1;
    made.input.disabled = !own;
    made.box.classList.toggle("off", !own);
    const all = own ? `all ${most}` : "all alike";
    const at = own ? state.head : EVERY;
    made.show(at + 1, at === EVERY ? all : `${at}`, at === EVERY ? all : `head ${at}`);
  });
  return made.box;
}
