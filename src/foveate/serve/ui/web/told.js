// The answer as it comes, beside that of the full cache, and what the two have in common.

function told(stop) {
  const kicker = el("p", { class: "kicker" });
  const text = el("p", { class: "answer", id: "answer", "aria-live": "polite", "aria-atomic": "true" });
  const other = el("p", { class: "answer", id: "full" });
  const verdict = el("p", { class: "verdict", id: "verdict", role: "status" });
  const halt = el("button", { type: "button", class: "link stop", id: "stop", onclick: stop }, "Stop");
  const box = el(
    "div",
    { class: "told" },
    el("div", { class: "duo" },
      el("div", {}, kicker, text),
      el("div", {}, el("p", { class: "kicker" }, "Full cache"), other)),
    el("div", { class: "line" }, verdict, halt),
  );

  const put = (place, parts) => {
    if (place.innerHTML === el("p", {}, parts).innerHTML) return; // or it would be read out again
    place.replaceChildren(...parts);
    place.classList.toggle("long", place.textContent.length > 24);
    const isLonger = place.textContent.length > 120;
    place.classList.toggle("longer", isLonger);
    if (isLonger) place.setAttribute("tabindex", "0"); // to be scrolled by keyboard
    else place.removeAttribute("tabindex");
  };
  const say = (...words) => {
    if (verdict.textContent !== words.map((word) => word.textContent ?? word).join("")) verdict.replaceChildren(...words);
  };

  const fail = (message) =>
    say(el("span", { class: "sign bad", "aria-hidden": "true" }, "!"), el("span", { class: "error" }, message));

  // `run` is what is wanted, if anything is known of it; `isBusy`: more of something is to come.
  function show(comparison, { method, budget }, run, isBusy, problem) {
    const isDone = Boolean(run?.full ? comparison.full.answer !== null : run?.isDone);
    kicker.textContent = budget === FULL.budget ? "Answer" : `${method}, ${budget} kept`;
    text.setAttribute("aria-busy", String(!isDone)); // read out when it is complete, not letter by letter
    halt.classList.toggle("on", isBusy);
    const full = comparison?.full.answer ?? null;
    put(other, full === null ? [dots(isBusy)] : [spoken(full)]);
    if (!run || (run.full && !isDone)) put(text, [dots(isBusy)]);
    else if (run.full || run.parts) put(text, answerParts(comparison, run));
    else put(text, run.answer || isDone ? [spoken(run.answer)] : [dots(isBusy)]);
    if (isBusy && !isDone) say("Asking …");
    else if (isBusy && full === null) say("Asking the full cache, to compare …");
    else if (problem) fail(problem);
    else if (isDone && full !== null) say(...verdictOf(comparison, run));
    else say("Stopped.");
  }

  function clear(words) {
    kicker.textContent = "Answer";
    for (const place of [text, other]) put(place, [dots(false)]);
    halt.classList.remove("on");
    say(words);
  }

  return { box, show, clear, fail };
}

function dots(isBusy) {
  return el("span", { class: isBusy ? "soft dots" : "soft", "aria-hidden": "true" }, isBusy ? "…" : "–");
}
