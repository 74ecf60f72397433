// What a person fills in and moves: question, key, method, budget.

// The field for the question, examples of questions, and the key if the server wants one.
function questionForm(config, ask) {
  const field = el("textarea", { id: "question", rows: "1", placeholder: "What do you want to know?", autocomplete: "off" });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  const key = el("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false" });
  const tries = el("p", { class: "tries" });
  const box = el(
    "form",
    { class: "ask", onsubmit: (event) => {
      event.preventDefault();
      ask();
    } },
    el("label", { class: "kicker", for: "question" }, "Question"),
    el("div", { class: "line" }, field, el("button", { type: "submit", class: "go", id: "ask" }, "Ask")),
    tries,
    config.keyed
      ? el("p", { class: "line key" }, el("label", { for: "key" }, "API key"), key,
          el("span", { class: "soft" }, "kept in this tab only"))
      : null,
  );
  const put = (text) => {
    field.value = text;
    ask();
  };
  const offer = (questions) => tries.replaceChildren(...(questions.length ? ["Try ", ...questions.map((text) =>
    el("button", { type: "button", class: "chip", onclick: () => put(text) }, text))] : []));
  return { box, field, put, offer, key: () => key.value.trim(), askKey: () => key.focus() };
}

// Method and budget.
function dials(config, wanted, choose) {
  const names = [...config.budgets.map(([name]) => name), FULL.budget];
  const marked = ["1 %", "5 %", "10 %", "20 %", "50 %", FULL.budget];
  const ticks = names.map((name) => (marked.includes(name) ? name : ""));
  const made = slider("budget", "Kept", names.length - 1, 0, (at) => choose({ budget: names[at] }), ticks);
  const method = el(
    "select",
    { id: "method", onchange: (event) => choose({ method: event.currentTarget.value }) },
    config.methods.map((name) => el("option", { value: name }, name)),
  );
  const show = (comparison, run) => {
    const at = names.indexOf(wanted.budget);
    const spoken = run && (run.full || run.isDone) ? spokenBudget(comparison, wanted, run) : wanted.budget;
    made.show(at, wanted.budget, spoken);
    [...made.marks.children].forEach((mark, i) => mark.classList.toggle("on", i === at));
    method.value = wanted.method;
  };
  [...made.marks.children].forEach((mark) => mark.classList.toggle("wide", ["10 %", "50 %"].includes(mark.textContent)));
  const box = el(
    "div",
    { class: "controls dial" },
    el("div", { class: "slider" }, el("label", { for: "method" }, "Method"), method),
    made.box,
  );
  return { box, show };
}
