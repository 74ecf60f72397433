// Everything that was counted and measured, one row for each run.

const MEASURED = "Bytes are measured after the answer; times are those of one run on a machine that may be busy, "
  + "and foveate bench measures them well.";

function numbers(comparison, text = MEASURED) {
  const measured = comparison.runs.some((run) => run.fidelity);
  const heads = [
    "method", "kept", "answer", "same", "visual tokens", "cache", "of the full one", "peak",
    ...(measured ? ["attention kept", "same tokens", "KL, nats"] : []),
    "prefill", "new token",
  ];
  const { full } = comparison;
  const dashes = measured ? ["100 %", "100 %", "0"] : [];
  const first = [
    "full cache", "100 %", answerCell(full.answer), "", number(comparison.visual),
    size(full.bytes_stored), "100 %", "–", ...dashes, milliseconds(full.prefill_ms), milliseconds(full.decode_ms),
  ];
  const rows = comparison.runs.map((run) => numbersOf(comparison, run, measured));
  const table = scroller("Table of all runs");
  table.append(grid("All runs", heads, [first, ...rows]));
  return section(
    "numbers",
    "All numbers",
    text,
    table,
    notes(comparison),
  );
}

function numbersOf(comparison, run, measured) {
  if (run.error) return [run.method, run.budget, el("span", { class: "error" }, run.error)];
  const same = comparison.isSame(run);
  const { fidelity } = run;
  const extra = fidelity
    ? [percent(fidelity.mass), percent(fidelity.agreement), number(fidelity.kl, 4)]
    : measured ? ["–", "–", "–"] : [];
  return [
    run.method, run.budget, answerCell(run.answer),
    el("span", {}, sign(same), el("span", { class: "hidden" }, same ? "yes" : "no")),
    kept(run.visual_kept), size(run.bytes_stored), percent(run.bytes_stored / run.bytes_full),
    size(run.bytes_peak), ...extra, milliseconds(run.prefill_ms), milliseconds(run.decode_ms),
  ];
}

function answerCell(text) {
  const cell = el("span", { class: text.length > 32 ? "told-here long" : "told-here", title: text });
  cell.textContent = text || "(nothing)";
  return cell;
}

function notes(comparison) {
  const told = new Map();
  for (const run of comparison.runs) {
    const all = [...(run.notes ?? [])];
    if (run.late) all.push("evicts while it writes: what is shown is kept when the answer is complete");
    if (run.late && run.fidelity) all.push("attention kept is that on what the prompt left, before the first token");
    for (const note of all) {
      told.set(note, [...(told.get(note) ?? []), `${run.method} at ${run.budget}`]);
    }
  }
  const lines = [...told].map(([note, runs]) => el("li", {}, el("b", {}, runs.join(", ")), `: ${note}`));
  return lines.length ? el("ul", { class: "notes" }, lines) : null;
}
