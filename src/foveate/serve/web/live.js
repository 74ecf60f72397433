// The page: a picture, a question, a budget; what is known of them is shown, the rest is asked for.

const PATIENCE = 250; // milliseconds after the last move of a slider
const NUMBERS = "Bytes are measured when the prompt is read; times are those of this server, with waiting and "
  + "whoever else asks in them.";

function live(config, root) {
  const wanted = { method: config.methods[0], budget: config.budget };
  let picture = null;
  let inquiry = null;
  let view = null; // state and change of what is shown of the inquiry
  let timer = null; // of a wish that waits for the slider to rest

  const answer = told(() => {
    rest();
    inquiry?.stop();
    present();
  });
  const place = el("div", { class: "place" });
  const below = el("div", { class: "below" });
  const more = el("div", { class: "more" });
  const costs = el("div", { class: "costs" });
  const pick = picker(config, take, (error) => answer.fail(error.message));
  const form = questionForm(config, ask);
  const dial = dials(config, wanted, choose);
  const panel = el("div", { class: "panel" }, form.box, answer.box, dial.box, more, costs);
  root.replaceChildren(
    el("header", {}, brand(), el("p", { class: "about" }, el("span", {}, `model: ${config.model}`))),
    el("h1", { class: "hidden" }, "Ask about a picture, and move the budget of its cache"),
    el("div", { class: "screen" }, el("div", { class: "left" }, pick.sources, place), panel),
    below,
    el("footer", {}, el("p", {}, `foveate serve, version ${config.version}. Pictures and questions go to this server only.`)),
  );
  place.replaceChildren(pick.empty());
  answer.clear("Give a picture, and ask something about it.");
  dial.show();
  recoloured(() => view?.change.now("start"));

  function take(given) {
    picture = given;
    forget();
    const plain = el("img", { class: "sight plain", src: picture.src, alt: `The picture: ${picture.name}` });
    plain.style.setProperty("--ratio", picture.image.naturalWidth / picture.image.naturalHeight);
    place.replaceChildren(plain);
    form.offer(picture.questions);
    if (picture.isExample) form.put(picture.questions[0]);
    else {
      answer.clear("Ask something about it.");
      form.field.focus();
    }
  }

  function rest() {
    clearTimeout(timer);
    timer = null;
  }

  function forget() {
    rest();
    inquiry?.stop();
    inquiry = view = null;
    for (const box of [more, costs, below]) box.replaceChildren();
  }

  function ask() {
    if (!picture) {
      answer.fail("There is no picture yet; drop one, paste one, or choose an example.");
      return;
    }
    const text = form.field.value.trim();
    if (!text) {
      answer.fail("There is no question yet.");
      form.field.focus();
      return;
    }
    rest();
    inquiry?.stop();
    const mine = new Inquiry(config, picture, text, form.key(), (what, run) => {
      if (mine === inquiry) heard(what, run);
    });
    inquiry = mine;
    view = null;
    place.classList.add("waiting");
    document.title = `${text.slice(0, 80)} · Foveate`;
    want();
  }

  function want() {
    timer = null;
    inquiry.want(wanted.method, wanted.budget).then(present);
    present();
  }

  // A new method or budget: what is known is shown at once, else asked for when the slider rests.
  function choose(next) {
    Object.assign(wanted, next);
    rest();
    if (!inquiry) {
      dial.show();
      return;
    }
    inquiry.asking?.abort();
    const isKnown = inquiry.comparison?.has(wanted.method, wanted.budget);
    timer = setTimeout(want, isKnown ? 0 : PATIENCE);
    present();
  }

  function heard(what, run) {
    if (what === "failed") {
      if (run.status === 401) form.askKey();
      present();
      return;
    }
    if (what === "held" || (what === "full" && !view)) begin();
    present();
    if (["done", "full", "compared"].includes(what)) list();
    if (what === "held" || what === "full") view?.change.now("start");
  }

  // The first thing that is known of a prompt: from now on its patches are shown.
  function begin() {
    const { comparison } = inquiry;
    if (!view) {
      const state = { ...wanted, layer: EVERY, head: EVERY, picture: 0, sheet: 0, looks: false };
      view = { state, change: changes(state), heads: 1 };
      place.replaceChildren(stage(comparison, state, view.change));
      more.replaceChildren(el("div", { class: "controls" }, layerSlider(comparison, state, view.change)));
      costs.replaceChildren(facts(comparison, state, view.change));
      view.tried = el("div", {});
      view.table = el("div", {});
      const parts = [layerBars(comparison, state, view.change), prompt(comparison, state, view.change)];
      below.replaceChildren(view.tried, el("div", { class: "pair" }, parts), view.table);
    }
    const most = Math.max(...comparison.runs.map((run) => run.heads ?? 1));
    if (most > view.heads) {
      view.heads = most;
      more.firstChild.append(headSlider(comparison, view.state, view.change));
    }
  }

  // Shows what is known of what is wanted; while nothing is, the picture stays as it was, but dim.
  function present() {
    if (!inquiry) return;
    const { comparison } = inquiry;
    const { method, budget } = wanted;
    const isFull = budget === FULL.budget;
    const found = isFull ? FULL : comparison?.runs.find((run) => run.method === method && run.budget === budget);
    const known = found && (!isFull || comparison?.has(method, budget)) ? found : undefined;
    const isBusy = inquiry.isBusy || timer !== null;
    answer.show(comparison, wanted, known, isBusy, inquiry.problem);
    dial.show(comparison, known);
    place.classList.toggle("waiting", !known && isBusy);
    if (view && known && (view.state.method !== method || view.state.budget !== budget)) {
      view.change({ method, budget });
    }
  }

  function list() {
    const { comparison } = inquiry;
    if (!view || comparison.full.answer === null) return;
    view.tried.replaceChildren(tried(comparison, view, choose));
    view.table.replaceChildren(numbers({ ...comparisonOf(comparison), runs: comparison.done }, NUMBERS));
  }

  return { wanted, inquiry: () => inquiry, view: () => view };
}

// What the table of numbers reads of a comparison.
function comparisonOf(comparison) {
  const { full, visual, notes } = comparison;
  return { full, visual, notes, isSame: (run) => comparison.isSame(run) };
}

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

// What was asked so far, as small pictures; each shows itself again.
function tried(comparison, view, choose) {
  const shown = [];
  const methods = comparison.methods.filter((method) => comparison.done.some((run) => run.method === method));
  const rows = methods.map((method) => {
    const budgets = comparison.budgets.filter((budget) => budget !== FULL.budget && comparison.has(method, budget));
    const cards = budgets.map((budget) => card(comparison, method, budget, choose));
    shown.push(...cards);
    return el("div", { class: "row" }, el("h3", {}, method), el("div", { class: "thumbs" }, cards.map((one) => one.button)));
  });
  const most = Math.max(5, ...rows.map((row) => row.querySelectorAll(".thumb").length));
  for (const row of rows) row.style.setProperty("--count", Math.min(most, 8));
  const box = section("tried", "Tried so far", "Choose one to see it again; nothing is asked anew.", ...rows);
  const { state, change } = view;
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
  view.paint = paint;
  if (!view.isHeard) change.on(() => view.paint());
  view.isHeard = true;
  new ResizeObserver(paint).observe(box);
  return box;
}

const server = document.getElementById("server");
if (server) window.foveate.live = live(JSON.parse(server.textContent), document.getElementById("page"));
