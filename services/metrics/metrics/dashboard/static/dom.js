// Creates elements from code, never from text, so that data from the server cannot become markup.

import { update } from "./update.js";

/**
 * `h("p", {class: "muted", onclick: f, vars: {"--share": "40%"}}, "text", child)`; null and false children are left out.
 * `key` identifies an element of a list, whatever its position (see `update`).
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") || name === "key") element[name] = value;
    else if (name === "vars") setVars(element, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set custom properties through the object model, which the content security policy allows. */
function setVars(element, vars) {
  for (const [name, value] of Object.entries(vars)) element.style.setProperty(name, value);
}

export const byId = (id) => document.getElementById(id);

/** Write only what changed, so that a screen reader's place and a selection survive an update. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Replace the children with the result of `make`, unless `key` is unchanged since the last call. */
export function renderOnce(element, key, make) {
  const text = JSON.stringify(key);
  if (element.renderedKey === text) return;
  element.renderedKey = text;
  update(element, ...[make()].flat().filter(Boolean));
}

/** Set whether a button ignores presses. Unlike a disabled one it keeps the focus, so handlers must check `isOff`. */
export function setOff(button, isOff) {
  button.setAttribute("aria-disabled", isOff);
}

export const isOff = (button) => button.getAttribute("aria-disabled") === "true";

/** Bring an element into view and give it the focus. */
export function goTo(element) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "center" });
  element.focus({ preventScroll: true });
}

/** The header of a label's row. Long names are wrapped. */
export const labelHead = (label) => h("th", { scope: "row", class: label.length > 16 ? "long" : null }, label);

/** A heading row: the title, an optional note, and elements at its end. */
export function panelHead(id, title, note, ...end) {
  return h(
    "div",
    { class: "panel-head" },
    h("div", {}, h("h2", { id }, title), note ? h("p", { class: "muted" }, note) : null),
    ...end,
  );
}

export function notice(kind, title, detail, ...more) {
  return h("div", { class: "notice", "data-kind": kind }, h("strong", {}, title), detail ? h("p", {}, detail) : null, ...more);
}
