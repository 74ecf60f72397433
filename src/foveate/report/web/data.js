// What a comparison holds: runs by method and budget, and which share of layers and heads keeps what.

const EVERY = -1; // of layers and of heads
const FULL = { full: true, budget: "full", method: "full cache" };

function bytesOf(text) {
  return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
}

function bitOf(bytes, index) {
  return (bytes[index >> 3] >> (index & 7)) & 1;
}

class Comparison {
  constructor(data) {
    if (data.format !== 1) throw new Error(`this page reads format 1, not ${data.format}`);
    Object.assign(this, data);
    this.words = data.prompt.filter((piece) => "text" in piece).length;
    this.methods = [...new Set(data.runs.map((run) => run.method))];
    const good = data.runs.find((run) => !run.error);
    this.layers = good.layers.map((layer) => layer.layer);
    this.budgets = [...this.#sizes().entries()].sort((a, b) => a[1] - b[1]).map(([name]) => name);
    this.budgets.push(FULL.budget);
    this.looks = data.full.look && bytesOf(data.full.look.shades);
    this.known = new Map();
    this.read = new Map();
  }

  #bytes(text) {
    if (!this.read.has(text)) this.read.set(text, bytesOf(text));
    return this.read.get(text);
  }

  #sizes() {
    const sizes = new Map();
    for (const run of this.runs) {
      if (!run.error && !sizes.has(run.budget)) sizes.set(run.budget, run.visual_kept);
    }
    for (const run of this.runs) if (!sizes.has(run.budget)) sizes.set(run.budget, 0);
    return sizes;
  }

  run(method, budget) {
    if (budget === FULL.budget) return FULL;
    return this.runs.find((run) => run.method === method && run.budget === budget)
      ?? { method, budget, error: "not among the runs" };
  }

  answer(run) {
    return run.full ? this.full.answer : run.answer;
  }

  isSame(run) {
    return run.full || this.answer(run) === this.full.answer;
  }

  heads(run) {
    return run.full || run.error ? 1 : run.heads;
  }

  // Whether a single list of tokens is meant, so that each is kept or not.
  isOne(run, layer, head) {
    return run.full || (layer !== EVERY && (head !== EVERY || this.heads(run) === 1));
  }

  // The share of the chosen layers and heads that keeps each token: `what` is "visual" or "text".
  shares(run, what, layer = EVERY, head = EVERY) {
    const count = what === "visual" ? this.visual : this.words;
    if (run.full) return new Float32Array(count).fill(1);
    if (run.error) return new Float32Array(count);
    const key = [run.method, run.budget, what, layer, head].join("\n");
    if (!this.known.has(key)) this.known.set(key, this.#counted(run, what, layer, head, count));
    return this.known.get(key);
  }

  #counted(run, what, layer, head, count) {
    const bytes = this.#bytes(run[`kept_${what}`]);
    const layers = layer === EVERY ? run.layers.map((_, i) => i) : [layer];
    const all = [...Array(run.heads).keys()];
    const heads = head === EVERY || run.heads === 1 ? all : [head];
    const found = new Float32Array(count);
    for (const n of layers) {
      for (const h of heads) {
        const start = (n * run.heads + h) * count;
        for (let i = 0; i < count; i++) found[i] += bitOf(bytes, start + i);
      }
    }
    const most = layers.length * heads.length;
    return found.map((value) => value / most);
  }

  // The share of layers in which each text token is among those that observe; null if none do.
  observers(run, layer = EVERY) {
    if (run.full || run.error || !run.window) return null;
    const bytes = this.#bytes(run.window);
    const layers = layer === EVERY ? run.layers.map((_, i) => i) : [layer];
    const found = new Float32Array(this.words);
    for (const n of layers) {
      for (let i = 0; i < this.words; i++) found[i] += bitOf(bytes, n * this.words + i);
    }
    return found.map((value) => value / layers.length);
  }

  // The share of all looks at the prompt that each visual token gets, while the answer is written.
  looked(layer = EVERY) {
    const layers = layer === EVERY ? this.layers.map((_, i) => i) : [layer];
    const found = new Float32Array(this.visual);
    for (const n of layers) {
      for (let i = 0; i < this.visual; i++) {
        const shade = this.looks[n * this.visual + i] / 255;
        found[i] += (shade * shade * this.full.look.most[n]) / layers.length;
      }
    }
    return found;
  }
}

function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
