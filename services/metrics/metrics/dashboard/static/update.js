// Updates elements in place, so that the focus, open tables and the scroll position survive live updates.

/** Replace the children. A focused child keeps the focus; if it is removed, its panel gets it. */
export function update(place, ...wanted) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  morphChildren(place, wanted);
  if (focused === null || document.activeElement === focused) return;
  (place.contains(focused) ? focused : place.closest("[tabindex]"))?.focus({ preventScroll: true });
}

function morphChildren(place, wanted) {
  const keys = new Set(wanted.map((node) => node.key));
  for (const node of [...place.childNodes]) if (!keys.has(node.key)) node.remove();
  const keyed = new Map([...place.childNodes].filter((node) => node.key !== undefined).map((node) => [node.key, node]));
  let at = place.firstChild;
  for (const node of wanted) {
    const kept = node.key === undefined ? at : keyed.get(node.key);
    if (!isAlike(kept, node)) {
      place.insertBefore(node, at);
      continue;
    }
    if (kept === at) at = at.nextSibling;
    else place.insertBefore(kept, at);
    morph(kept, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const isAlike = (kept, node) => Boolean(kept) && kept.nodeName === node.nodeName && kept.key === node.key;

function morph(kept, node) {
  if (kept.nodeType === Node.TEXT_NODE) {
    if (kept.data !== node.data) kept.data = node.data;
    return;
  }
  kept.onclick = node.onclick;
  for (const { name } of [...kept.attributes]) if (!belongsToReader(name) && !node.hasAttribute(name)) kept.removeAttribute(name);
  for (const { name, value } of node.attributes) {
    if (!belongsToReader(name) && kept.getAttribute(name) !== value) kept.setAttribute(name, value);
  }
  if (kept.style.cssText !== node.style.cssText) kept.style.cssText = node.style.cssText; // the content security policy forbids the attribute
  morphChildren(kept, [...node.childNodes]);
}

/** Whether a table is open is the reader's choice; style is set through the object model. */
const belongsToReader = (name) => name === "open" || name === "style";
