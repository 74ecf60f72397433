// The prompt token by token: which text observes, which is kept, and where the pictures stand.

const MOST_WORDS = 3000;

function prompt(comparison, state, change) {
  const box = scroller("The prompt", "prompt");
  const note = el("p", { class: "caption" });
  change.on((what) => {
    if (what.has("looks") && what.size === 1) return;
    const run = comparison.run(state.method, state.budget);
    const shares = comparison.shares(run, "text", state.layer, state.head);
    const observers = comparison.observers(run, state.layer);
    box.replaceChildren(...pieces(comparison, run.error ? null : shares, observers));
    note.textContent = toldOfWords(run, shares, observers, state);
  });
  return section(
    "prompt",
    "The prompt, token by token",
    "Boxed text observes: its attention decides what stays (AirCache’s elite window). "
      + "Underlined text is kept, struck text is not.",
    box, note,
    comparison.prompt.length > MOST_WORDS
      ? el("p", { class: "caption" }, `Only the first ${number(MOST_WORDS)} pieces are shown.`)
      : null,
  );
}

function pieces(comparison, shares, observers) {
  let at = 0;
  return comparison.prompt.slice(0, MOST_WORDS).map((piece) => {
    if ("visual" in piece) {
      const name = comparison.pictures.length > 1 && piece.picture >= 0 ? ` of picture ${piece.picture + 1}` : "";
      return el("span", { class: "run" }, `${number(piece.visual)} visual tokens${name}`);
    }
    const share = shares && shares[at];
    const watches = observers ? observers[at] : 0;
    at += 1;
    return word(piece, share, watches);
  });
}

// A token of text; `share` is null where nothing is known of it.
function word(piece, share, watches) {
  const text = piece.text.replace(/\n/g, "⏎").replace(/^ | $/g, "\u00a0") || "∅";
  if (share === null) return el("span", { class: piece.special ? "word special" : "word" }, text);
  const kinds = ["word", piece.special ? "special" : "", share > 0 ? "stays" : "goes", watches > 0 ? "observes" : ""];
  const told = [share >= 1 ? "kept" : share > 0 ? `kept by ${percent(share)}` : "not kept"];
  if (watches > 0) told.push(watches >= 1 ? "observes" : `observes in ${percent(watches)} of layers`);
  const made = el("span", { class: kinds.filter(Boolean).join(" "), title: told.join("; ") },
    text, el("span", { class: "hidden" }, ` (${told.join("; ")}) `));
  made.style.setProperty("--kept", String(share));
  made.style.setProperty("--watches", String(watches));
  return made;
}

function toldOfWords(run, shares, observers, state) {
  if (run.error) return "";
  const text = `${kept(sum(shares))} of ${plural(shares.length, "text token")} kept`;
  if (run.full) return `${text}.`;
  if (!observers) return `${text}. ${run.method} has no window: nothing in the prompt observes.`;
  const layers = state.layer === EVERY ? run.layers : [run.layers[state.layer]];
  const sizes = layers.map((layer) => layer.numbers.window).filter((value) => value !== undefined);
  if (!sizes.length) return `${text}.`;
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const wide = low === high ? plural(high, "token") : `${kept(low)} to ${plural(high, "token")}`;
  const visual = high > sum(observers.map((share) => share > 0)) + 0.5 ? ", visual ones among them" : "";
  return `${text}. The window has ${wide} a layer${visual}.`;
}
