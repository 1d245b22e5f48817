// Threshold rules in words, and the differences of two documents of rules.

import { NONE, WINDOWS, exactDuration, limitValue, metricName } from "./format.js";

/** "p95 latency above 500 ms over 5 minutes, for 2 min" */
export function sentence(rule) {
  const limit = limitValue(rule.metric, rule.above ?? rule.below);
  const held = rule.for_s ? `, for ${exactDuration(rule.for_s)}` : "";
  const window = rule.window === "1h" ? "1 hour" : WINDOWS[rule.window];
  const where = Object.entries(rule.where ?? {}).map(([field, value]) => `${field} ${value}`).join(", ");
  return `${metricName(rule.metric)}${where ? ` of ${where}` : ""} ${side(rule)} ${limit} over ${window}${held}`;
}

export const side = (rule) => (rule.above !== undefined && rule.above !== null ? "above" : "below");

/** Fields in which two versions of a rule differ: `[field, one, other]`. */
export function differences(one, other) {
  const fields = [...new Set([...Object.keys(one ?? {}), ...Object.keys(other ?? {})])];
  return fields
    .map((field) => [field, shown(one, field), shown(other, field)])
    .filter(([, left, right]) => left !== right);
}

/** Names of rules that differ between the documents. */
export function changedRules(one, other) {
  const byName = (rules) => new Map(rules.map((rule) => [rule.name, rule]));
  const [left, right] = [byName(one), byName(other)];
  return [...new Set([...left.keys(), ...right.keys()])].filter((name) => differences(left.get(name), right.get(name)).length > 0);
}

/** `rules` with the one named `name` replaced by `rule`, added if there is none, or dropped if `rule` is null. */
export function withRule(rules, name, rule) {
  if (rule === null) return rules.filter((one) => one.name !== name);
  return rules.some((one) => one.name === name) ? rules.map((one) => (one.name === name ? rule : one)) : [...rules, rule];
}

function shown(rule, field) {
  if (!rule) return "no such rule";
  const value = rule[field] ?? null;
  if (value === null) return NONE;
  return typeof value === "object" ? Object.entries(value).map(([name, one]) => `${name} ${one}`).join(", ") : String(value);
}
