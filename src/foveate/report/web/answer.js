// What was asked, what came out, and what it cost.

function question(comparison) {
  const title = el("h1", {}, comparison.question);
  lengthen(title, 140);
  return el("div", { class: "question" }, el("p", { class: "kicker" }, "Question"), title);
}

const LONG = 60; // letters of an answer

// Long text is set small, and scrolls in its own place.
function lengthen(element, most) {
  const isLong = element.textContent.length > most;
  element.classList.toggle("long", isLong);
  if (isLong) element.setAttribute("tabindex", "0");
  else element.removeAttribute("tabindex");
}

function answer(comparison, state, change) {
  const kicker = el("p", { class: "kicker" });
  const text = el("p", { class: "answer", id: "answer" });
  const verdict = el("p", { class: "verdict", id: "verdict" });
  change.on(() => {
    const run = comparison.run(state.method, state.budget);
    kicker.textContent = run.full ? "Answer with the full cache" : `Answer with ${run.method}, ${run.budget} kept`;
    text.replaceChildren(...answerParts(comparison, run));
    lengthen(text, LONG);
    verdict.replaceChildren(...verdictOf(comparison, run));
  });
  return el("div", { class: "told", "aria-live": "polite" }, kicker, text, verdict);
}

function answerParts(comparison, run) {
  if (run.error) return [el("span", { class: "error" }, run.error)];
  if (run.full) return [spoken(comparison.full.answer)];
  if (!run.answer && comparison.isSame(run)) return [spoken("")];
  return run.parts.map(([kind, words]) => {
    if (kind === "same") return el("span", {}, words);
    return el(kind === "full" ? "del" : "ins", {}, words);
  });
}

function spoken(text) {
  return text ? el("span", {}, text) : el("span", { class: "soft" }, "(nothing)");
}

function verdictOf(comparison, run) {
  if (run.error) return [sign(false), "This run failed; the others are complete."];
  if (run.full) return [sign(true), "What every other answer is compared with."];
  if (comparison.isSame(run)) return [sign(true), "The same as with the full cache."];
  if (run.parts?.every(([kind]) => kind === "same")) {
    return [sign(false), "The words of the full cache, with other spaces or lines between them."];
  }
  if (Math.max(run.answer.length, comparison.full.answer.length) > LONG) {
    return [sign(false), "Not what the full cache says: struck words are missing here, underlined ones are new."];
  }
  return [
    sign(false),
    "Not what the full cache says: ",
    el("span", { class: "said" }, run.answer || "(nothing)"),
    " instead of ",
    el("span", { class: "said" }, comparison.full.answer || "(nothing)"),
    ".",
  ];
}

function sign(isGood) {
  const name = isGood ? "sign good" : "sign bad";
  return el("span", { class: name, "aria-hidden": "true" }, isGood ? "✓" : "≠");
}

function facts(comparison, state, change) {
  const list = el("dl", { class: "facts" });
  change.on(() => {
    const run = comparison.run(state.method, state.budget);
    list.replaceChildren(...(run.error ? [] : factsOf(comparison, state, run)));
  });
  return list;
}

function factsOf(comparison, state, run) {
  const { full } = comparison;
  const tokens = sum(comparison.shares(run, "visual", state.layer, state.head));
  const bytes = run.full ? full.bytes_stored : run.bytes_stored;
  const whole = run.full ? full.bytes_stored : run.bytes_full;
  const step = run.full ? full.decode_ms : run.decode_ms;
  const found = [
    fact("tokens", "Visual tokens", kept(tokens), `of ${number(comparison.visual)}`, tokens / comparison.visual),
    fact("bytes", "Cache", size(bytes), `of ${size(whole)}`, bytes / whole),
  ];
  const mass = run.full ? (full.look ? 1 : undefined) : run.fidelity?.mass;
  if (mass !== undefined) {
    found.push(fact("mass", "Attention kept", percent(mass), "of the answer’s looks", mass));
  } else {
    const start = run.full ? full.prefill_ms : run.prefill_ms;
    found.push(fact("first", "First token after", milliseconds(start), `full cache: ${milliseconds(full.prefill_ms)}`, null));
  }
  const other = `full cache: ${milliseconds(full.decode_ms)}`;
  found.push(fact("step", "Each new token", milliseconds(step), other, null));
  return found;
}

function fact(id, name, value, rest, share) {
  const meter = share === null ? null : el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
  if (meter) meter.firstChild.style.width = `${100 * Math.min(share, 1)}%`;
  return el(
    "div",
    { id: `fact-${id}` },
    el("dt", {}, name),
    el("dd", {}, el("b", {}, value), " ", el("small", {}, rest), meter),
  );
}
