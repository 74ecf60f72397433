// One question about one picture: its runs come in one by one, each asked for when it is wanted.

// A comparison that begins with the first thing that is told of its prompt, and grows.
class Growing extends Comparison {
  constructor(config, inquiry, seen) {
    const { run, ...told } = seen;
    const full = { answer: null, look: null };
    super({ format: 1, model: config.model, question: inquiry.question, ...told, full, runs: [run] });
    this.runs = [];
    this.methods = config.methods;
    this.budgets = [...config.budgets.map(([name]) => name), FULL.budget];
    // without places on it, the tokens are drawn as a grid, not over the picture
    this.images = this.pictures.map((one) => (one.width ? inquiry.picture.image : null));
  }

  // The runs that are complete, by method, and by budget within a method.
  get done() {
    const place = (run) => this.methods.indexOf(run.method);
    return this.runs.filter((run) => run.isDone).sort((a, b) => place(a) - place(b) || b.keep - a.keep);
  }

  take(run) {
    const at = this.runs.findIndex((one) => one.method === run.method && one.budget === run.budget);
    if (at < 0) this.runs.push(run);
    else this.runs[at] = run;
    this.known.clear(); // what was counted of an earlier state of it
  }

  // The run, complete or not; nothing where it has not begun.
  found(method, budget) {
    if (budget === FULL.budget) return this.has(method, budget) ? FULL : undefined;
    return this.runs.find((run) => run.method === method && run.budget === budget);
  }

  has(method, budget) {
    if (budget === FULL.budget) return this.full.answer !== null;
    return Boolean(this.found(method, budget)?.isDone);
  }
}

class Inquiry {
  constructor(config, picture, question, key, tell) {
    Object.assign(this, { config, picture, question, key, tell });
    this.comparison = null;
    this.problem = null; // what the last wish came to, if to nothing
    this.asking = null; // of a run
    this.filling = null; // of the full cache
  }

  // Has the run that is wanted be asked for, and the full cache behind it, if they are not known.
  async want(method, budget) {
    this.asking?.abort();
    this.asking = this.problem = null;
    try {
      if (budget !== FULL.budget && !this.comparison?.has(method, budget)) await this.#run(method, budget);
      await this.#full();
      const run = this.comparison.run(method, budget);
      if (!run.full && !run.parts && !run.error) {
        run.parts = await difference(this.comparison.full.answer, run.answer, this.key());
        this.tell("compared");
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      this.problem = error.message;
      this.tell("failed", error);
    }
  }

  get isBusy() {
    return Boolean(this.asking || this.filling);
  }

  // Ends what is on its way.
  stop() {
    this.asking?.abort();
    this.filling?.control.abort();
  }

  async #run(method, budget) {
    const control = new AbortController();
    this.asking = control;
    const keep = new Map(this.config.budgets).get(budget);
    const kv = method === this.config.own ? { keep } : { method, keep };
    const run = { method, keep, budget, answer: "", isDone: false };
    this.tell("asked", run);
    try {
      await look(this.#body(kv), this.key(), control.signal, (chunk) => this.#hear(run, chunk));
    } finally {
      if (this.asking === control) this.asking = null;
    }
    run.answer = run.answer.trim();
    run.isDone = true;
    this.tell("done", run);
  }

  #hear(run, chunk) {
    const seen = chunk.look;
    if (seen) {
      Object.assign(run, seen.run, { method: run.method, budget: run.budget });
      if (seen.pictures) this.#begin(seen);
      this.comparison.take(run);
      this.tell("held", run);
    }
    const text = chunk.choices[0]?.delta.content;
    if (!text) return;
    run.answer += text;
    this.tell("text", run);
  }

  #begin(seen) {
    this.comparison ??= new Growing(this.config, this, seen);
  }

  // Asks once, whoever wants it, however often.
  async #full() {
    if (this.comparison?.full.answer != null) return;
    this.filling ??= this.#fill();
    await this.filling.over;
  }

  #fill() {
    const control = new AbortController();
    const found = { answer: "", look: null };
    const hear = (chunk) => {
      if (chunk.look?.pictures) this.#begin(chunk.look);
      if (chunk.look) Object.assign(found, chunk.look.run);
      found.answer += chunk.choices[0]?.delta.content ?? "";
    };
    const ask = async () => {
      try {
        await look(this.#body({ method: "full" }), this.key(), control.signal, hear);
        found.answer = found.answer.trim();
        this.comparison.full = found;
        this.filling = null;
        this.tell("full");
      } finally {
        this.filling = null;
      }
    };
    return { control, over: ask() };
  }

  #body(kv) {
    const picture = { type: "image_url", image_url: { url: this.picture.src } };
    return {
      model: this.config.model,
      messages: [{ role: "user", content: [picture, { type: "text", text: this.question }] }],
      max_tokens: this.config.longest,
      temperature: 0,
      stream: true,
      kv,
    };
  }
}
