// Elements, numbers as people read them, and what is said aloud. Text never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function make(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null));
  return element;
}

function el(tag, properties = {}, ...children) {
  return make(document.createElement(tag), properties, children);
}

function svg(tag, properties = {}, ...children) {
  return make(document.createElementNS(SVG, tag), properties, children);
}

function number(value, digits = 0) {
  return value.toLocaleString("en", {
    minimumFractionDigits: 0,
    maximumFractionDigits: digits,
  });
}

function kept(value) {
  return number(value, value < 10 ? 1 : 0);
}

function percent(share) {
  const value = 100 * share;
  const digits = value === 0 || value >= 99.95 ? 0 : value < 1 ? 2 : value < 10 ? 1 : 0;
  return `${number(value, digits)} %`;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  for (; bytes >= 1024 && at < units.length - 1; at++) bytes /= 1024;
  return `${number(bytes, at && bytes < 100 ? 1 : 0)} ${units[at]}`;
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 10000 ? `${number(value / 1000, 1)} s` : `${number(value, value < 10 ? 1 : 0)} ms`;
}

function plural(count, word) {
  return `${kept(count)} ${word}${kept(count) === "1" ? "" : "s"}`;
}

// What may be wider or higher than its place, to be reached and scrolled by keyboard.
function scroller(name, kind = "scroll") {
  return el("div", { class: kind, tabindex: "0", role: "region", "aria-label": name });
}

// Buttons of one kind: Tab comes to one of them, and arrow keys go on to the others.
function toolbar(name, kind, buttons) {
  const go = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = step && buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };
  const stay = ({ target }) => {
    for (const one of buttons) one.tabIndex = one === target ? 0 : -1;
  };
  stay({ target: buttons[0] });
  return el("div", { class: kind, role: "toolbar", "aria-label": name, onkeydown: go, onfocusin: stay }, buttons);
}

function section(id, title, text, ...children) {
  return el(
    "section",
    { class: "card", "aria-labelledby": `${id}-title`, id },
    el("h2", { id: `${id}-title` }, title),
    text ? el("p", { class: "lead" }, text) : null,
    ...children,
  );
}
