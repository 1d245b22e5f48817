// Alerts: every rule with its state, the history, and the headline that follows from them.

import { h, notice, panelHead, renderOnce } from "./dom.js";
import { clock, dateTime, duration, metricValue } from "./format.js";
import { resolves, sentence } from "./rules.js";

const HISTORY = 20;
const UNKNOWN = { state: "unknown", text: "Status unknown" };
const FIRST = ["firing", "pending", "breached"];

export class Alerts {
  /** `follow(metric)` shows the plot of a metric. `editor` edits rules. */
  constructor(place, follow, editor) {
    Object.assign(this, { follow, editor, states: null, answer: null, trouble: null });
    this.list = h("div", {}, h("p", { class: "muted" }, "Loading…"));
    this.past = h("div");
    place.append(panelHead("alerts-title", "Alerts", "Checked every few seconds on the server.", ...editor.buttons), this.list, editor.said, this.past);
  }

  /** `states` are the rules' states in the latest aggregate. */
  showRules(states) {
    this.states = states;
    this.render();
  }

  show(answer) {
    Object.assign(this, { answer, trouble: null });
    this.render();
  }

  showTrouble(trouble) {
    this.trouble = trouble;
    this.render();
  }

  render() {
    const alerts = this.answer?.alerts ?? [];
    const open = new Map(alerts.filter((one) => one.state !== "resolved").map((one) => [one.rule.name, one]));
    const known = new Set(this.states?.map(({ rule }) => rule.name));
    const added = [...open.values()].filter(({ rule }) => !known.has(rule.name)).map(({ rule, value }) => ({ rule, current: value, breached: true }));
    const rows = [...(this.states ?? []), ...added].map((state) => rowOf(state, open.get(state.rule.name)));
    rows.sort((one, other) => placeOf(one) - placeOf(other));
    const at = this.answer?.evaluated_at;
    const late = this.answer?.overdue && at ? `Rules were last checked at ${dateTime(at)}. This list may be out of date.` : null;
    const isLoading = this.states === null && !rows.length;
    renderOnce(this.list, [rows, late, this.trouble && [this.trouble.detail], isLoading], () => [
      this.trouble ? notice("bad", "Alerts are unavailable.", this.trouble.detail) : late ? notice("warning", "Alerts are late", late) : null,
      rows.length ? h("ul", { class: "rows" }, rows.map((row) => this.row(row))) : null,
      isLoading ? h("p", { class: "muted" }, "Loading…") : null,
      rows.length || isLoading ? null : h("p", { class: "empty" }, "No rules. Add one to get an alert when a figure leaves its range."),
    ]);
    const past = alerts.filter((one) => one.state === "resolved");
    renderOnce(this.past, [past.slice(0, HISTORY), past.length], () => (past.length ? history(past) : null));
  }

  row({ rule, state, kind, word, value, text }) {
    const button = (label, name, onclick) => h("button", { type: "button", class: "quiet", "aria-label": `${name} ${rule.name}`, onclick }, label);
    return h(
      "li",
      { key: rule.name, "data-rule": rule.name, "data-state": state },
      h("span", { class: "badge", "data-kind": kind }, word),
      h("div", { class: "grow" }, h("strong", {}, rule.name), h("p", { class: "muted" }, text)),
      h("span", { class: "figure" }, value),
      button("Plot", "Show the plot of", () => this.follow(rule.metric)),
      button("Edit", "Edit", () => this.editor.edit(rule.name)),
    );
  }
}

const placeOf = ({ state }) => (FIRST.includes(state) ? FIRST.indexOf(state) : FIRST.length);

/** A row of the list, from a rule's state in the latest aggregate and its open alert, if there is one. */
function rowOf({ rule, current, breached }, alert) {
  const [state, kind, word] = alert
    ? [alert.state, alert.state === "firing" ? rule.severity : "pending", alert.state]
    : breached === null
      ? ["unknown", "unknown", "Not enough data"]
      : breached
        ? ["breached", rule.severity, "Breached"]
        : ["ok", "ok", "OK"];
  const since = alert ? `. Since ${dateTime(alert.firing_at ?? alert.pending_at)}${resolves(rule) && `, ${resolves(rule)}`}.` : "";
  return { rule, state, kind, word, value: metricValue(rule.metric, current), text: `${sentence(rule)}${since}` };
}

/**
 * The headline as `{state, text, href}`. `known` is null while alerts are unknown; `isStale` is whether the figures are
 * old; `failure` is what makes predictions fail, as `{text, since}`.
 */
export function verdictOf(aggregate, known, isStale, failure) {
  if (failure) return { state: "critical", text: `Predictions are failing: ${failure.text}${failure.since ? ` since ${clock(failure.since)}` : ""}`, href: "#system" };
  if (known === null) return UNKNOWN;
  const firing = known.alerts.filter((alert) => alert.state === "firing");
  const pending = known.alerts.filter((alert) => alert.state === "pending");
  if (firing.length) {
    const names = firing.map((alert) => alert.rule.name).join(", ");
    return { state: firing.some((alert) => alert.rule.severity === "critical") ? "critical" : "warning", text: `Firing: ${names}`, href: "#alerts" };
  }
  if (pending.length) return { state: "pending", text: `Watching: ${pending.map((alert) => alert.rule.name).join(", ")}`, href: "#alerts" };
  if (known.isPending) return { state: "unknown", text: "Looking…" };
  if (isStale) return UNKNOWN;
  if (!aggregate.requests) return { state: "empty", text: "No traffic in this window" };
  return { state: "ok", text: "All thresholds OK" };
}

function history(past) {
  const shown = past.slice(0, HISTORY);
  const row = ({ rule, value, fingerprint, firing_at: from, resolved_at: to }) =>
    h(
      "tr",
      { key: `${fingerprint} ${to}`, "data-resolved": rule.name },
      h("th", { scope: "row" }, rule.name),
      h("td", {}, dateTime(from)),
      h("td", {}, duration((Date.parse(to) - Date.parse(from)) / 1000)),
      h("td", {}, metricValue(rule.metric, value)),
    );
  const heads = ["Resolved", "Fired at", "Lasted", "Last value"].map((head) => h("th", { scope: "col" }, head));
  const more = past.length > HISTORY ? `, the latest ${HISTORY} of ${past.length}` : "";
  return h(
    "div",
    { class: "scroll history", tabindex: "0", role: "region", "aria-label": "Resolved alerts" },
    h("table", {}, h("caption", {}, `History${more}`), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, shown.map(row))),
  );
}
