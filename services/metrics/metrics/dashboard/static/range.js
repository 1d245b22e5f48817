// The time range of the page, kept in its address: {window}, which moves with the time, or a fixed {start, end}.

import { WINDOWS, dateTime } from "./format.js";

/** The range that the address names, or `usual`. */
export function fromAddress(usual) {
  const { window, start, end } = Object.fromEntries(new URLSearchParams(location.search));
  if (Date.parse(start) < Date.parse(end)) return { start, end };
  return Object.hasOwn(WINDOWS, window ?? "") ? { window } : usual;
}

/** Name `range` in the address, as a new entry of the history if `isNew`. */
export function toAddress(range, isNew) {
  const address = new URL(location);
  address.search = new URLSearchParams(range);
  history[isNew ? "pushState" : "replaceState"](null, "", address);
}

export const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** "the last hour", or the two times. */
export const nameOf = (range) => (range.window ? `the last ${WINDOWS[range.window]}` : `${dateTime(range.start)} to ${dateTime(range.end)}`);
