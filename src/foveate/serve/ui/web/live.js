// The page: a picture, a question, a budget; what is known of them is shown, the rest is asked for.

const PATIENCE = 250; // milliseconds after the last move of a slider
const NUMBERS = "Bytes are measured when the prompt is read; times are those of this server, with waiting and "
  + "whoever else asks in them.";

class Page {
  constructor(config, root) {
    this.config = config;
    this.wanted = { method: config.methods[0], budget: config.budget };
    this.picture = this.inquiry = null;
    this.view = null; // state and change of what is shown of the inquiry
    this.timer = null; // of a wish that waits for the slider to rest
    this.answer = told(() => this.stop());
    this.pick = picker(config, (picture) => this.take(picture), (error) => this.answer.fail(error.message));
    this.form = questionForm(config, () => this.ask());
    this.dial = dials(config, this.wanted, (next) => this.choose(next));
    for (const name of ["place", "more", "costs", "below"]) this[name] = el("div", { class: name });
    root.replaceChildren(...this.#parts());
    this.place.replaceChildren(this.pick.empty());
    this.answer.clear("Give a picture, and ask something about it.");
    this.dial.show();
    recoloured(() => this.view?.change.now("start"));
  }

  #parts() {
    const { config } = this;
    const about = el("p", { class: "about" }, el("span", {}, `model: ${config.model}`));
    const foot = `foveate serve, version ${config.version}. Pictures and questions go to this server only.`;
    return [
      el("header", {}, brand(), about),
      el("h1", { class: "hidden" }, "Ask about a picture, and move the budget of its cache"),
      el(
        "div",
        { class: "screen" },
        el("div", { class: "left" }, this.pick.sources, this.place),
        el("div", { class: "panel" }, this.form.box, this.answer.box, this.dial.box, this.more, this.costs),
      ),
      this.below,
      el("footer", {}, el("p", {}, foot)),
    ];
  }

  take(picture) {
    this.picture = picture;
    this.#rest();
    this.inquiry?.stop();
    this.inquiry = this.view = null;
    for (const box of [this.more, this.costs, this.below]) box.replaceChildren();
    const plain = el("img", { class: "sight plain", src: picture.src, alt: `The picture: ${picture.name}` });
    plain.style.setProperty("--ratio", picture.image.naturalWidth / picture.image.naturalHeight);
    this.place.replaceChildren(plain);
    this.form.offer(picture.questions);
    if (picture.isExample) this.form.put(picture.questions[0]);
    else {
      this.answer.clear("Ask something about it.");
      this.form.field.focus();
    }
  }

  ask() {
    const text = this.form.field.value.trim();
    if (!this.picture) this.answer.fail("There is no picture yet; drop one, paste one, or choose an example.");
    else if (!text) {
      this.answer.fail("There is no question yet.");
      this.form.field.focus();
    } else this.#begin(text);
  }

  #begin(text) {
    this.#rest();
    this.inquiry?.stop();
    const mine = new Inquiry(this.config, this.picture, text, this.form.key, (what, run) => {
      if (mine === this.inquiry) this.#heard(what, run);
    });
    this.inquiry = mine;
    this.view = null;
    document.title = `${text.slice(0, 80)} · Foveate`;
    this.#want();
  }

  // A new method or budget: what is known is shown at once, else asked for when the slider rests.
  choose(next) {
    Object.assign(this.wanted, next);
    this.#rest();
    if (!this.inquiry) {
      this.dial.show();
      return;
    }
    this.inquiry.asking?.abort();
    const isKnown = this.inquiry.comparison?.has(this.wanted.method, this.wanted.budget);
    this.timer = setTimeout(() => this.#want(), isKnown ? 0 : PATIENCE);
    this.#present();
  }

  stop() {
    this.#rest();
    this.inquiry?.stop();
    this.#present();
  }

  #rest() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  #want() {
    this.timer = null;
    this.inquiry.want(this.wanted.method, this.wanted.budget).then(() => this.#present());
    this.#present();
  }

  #heard(what, run) {
    if (what === "failed" && run.status === 401) this.form.askKey();
    if (what === "held" || (what === "full" && !this.view)) this.#open();
    this.#present();
    if (["done", "full", "compared"].includes(what)) this.#list();
    if (what === "held" || what === "full") this.view.change.now("start");
  }

  // The first thing that is known of a prompt: from now on its patches are shown.
  #open() {
    const { comparison } = this.inquiry;
    if (!this.view) {
      const state = { ...this.wanted, layer: EVERY, head: EVERY, picture: 0, sheet: 0, looks: false };
      const change = changes(state);
      const view = { state, change, heads: 1, tried: el("div", {}), table: el("div", {}), paint: () => {} };
      change.on(() => view.paint());
      this.view = view;
      this.place.replaceChildren(stage(comparison, state, change));
      this.more.replaceChildren(el("div", { class: "controls" }, layerSlider(comparison, state, change)));
      this.costs.replaceChildren(facts(comparison, state, change));
      const parts = [layerBars(comparison, state, change), prompt(comparison, state, change)];
      this.below.replaceChildren(this.view.tried, el("div", { class: "pair" }, parts), this.view.table);
    }
    const most = Math.max(...comparison.runs.map((run) => run.heads ?? 1));
    if (most > this.view.heads) {
      this.view.heads = most;
      this.more.firstChild.append(headSlider(comparison, this.view.state, this.view.change));
    }
  }

  // Shows what is known of what is wanted; while nothing is, the picture stays as it was, but dim.
  #present() {
    if (!this.inquiry) return;
    const { comparison, problem } = this.inquiry;
    const { method, budget } = this.wanted;
    const known = comparison?.found(method, budget);
    const isBusy = this.inquiry.isBusy || this.timer !== null;
    this.answer.show(comparison, this.wanted, known, isBusy, problem);
    this.dial.show(comparison, known);
    this.place.classList.toggle("waiting", !known && isBusy);
    const state = this.view?.state;
    if (state && known && (state.method !== method || state.budget !== budget)) this.view.change({ method, budget });
  }

  #list() {
    const { comparison } = this.inquiry;
    if (!this.view || comparison.full.answer === null) return;
    const { full, visual, done } = comparison;
    const isSame = (run) => comparison.isSame(run);
    const { box, paint } = tried(comparison, this.view.state, (next) => this.choose(next));
    this.view.tried.replaceChildren(box);
    this.view.paint = paint;
    this.view.table.replaceChildren(numbers({ full, visual, runs: done, isSame }, NUMBERS));
  }
}

const server = document.getElementById("server");
if (server) window.foveate.page = new Page(JSON.parse(server.textContent), document.getElementById("page"));
