// Threshold rules in words.

import { WINDOWS, exactDuration, limitValue, metricName } from "./format.js";

/** "p95 latency above 500 ms over 5 minutes, for 2 min" */
export function sentence(rule) {
  const limit = limitValue(rule.metric, rule.above ?? rule.below);
  const held = rule.for_s ? `, for ${exactDuration(rule.for_s)}` : "";
  const window = rule.window === "1h" ? "1 hour" : WINDOWS[rule.window];
  const where = Object.entries(rule.where ?? {}).map(([field, value]) => `${field} ${value}`).join(", ");
  return `${metricName(rule.metric)}${where ? ` of ${where}` : ""} ${side(rule)} ${limit} over ${window}${held}`;
}

/** "resolves below 400 ms", or nothing where a rule resolves at its limit. */
export const resolves = (rule) => (rule.resolve_at ?? null) === null ? "" : `resolves ${side(rule) === "above" ? "below" : "above"} ${limitValue(rule.metric, rule.resolve_at)}`;

export const side = (rule) => (rule.above !== undefined && rule.above !== null ? "above" : "below");

/** `rules` with the one named `name` replaced by `rule`, added if there is none, or dropped if `rule` is null. */
export function withRule(rules, name, rule) {
  if (rule === null) return rules.filter((one) => one.name !== name);
  return rules.some((one) => one.name === name) ? rules.map((one) => (one.name === name ? rule : one)) : [...rules, rule];
}
