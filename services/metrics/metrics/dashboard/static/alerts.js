// Alerts: firing and pending ones, the history, and the headline that follows from them.

import { h, notice, panelHead, renderOnce } from "./dom.js";
import { dateTime, duration, metricValue } from "./format.js";
import { sentence } from "./rules.js";

const HISTORY = 20;
const UNKNOWN = { state: "unknown", text: "Status unknown" };

export class Alerts {
  /** `follow(metric)` shows the plot of a metric. */
  constructor(place, follow) {
    this.follow = follow;
    this.list = h("div", {}, h("p", { class: "muted" }, "Loading…"));
    place.append(panelHead("alerts-title", "Alerts", "Checked every few seconds on the server."), this.list);
  }

  show({ alerts, evaluated_at: evaluatedAt, overdue }) {
    const open = alerts.filter((alert) => alert.state !== "resolved");
    const past = alerts.filter((alert) => alert.state === "resolved");
    const late = overdue && evaluatedAt !== null ? `Rules were last checked at ${dateTime(evaluatedAt)}. This list may be out of date.` : null;
    renderOnce(this.list, [open, past.slice(0, HISTORY), past.length, evaluatedAt === null, late], () => [
      late ? notice("warning", "Alerts are late", late) : null,
      open.length ? h("ul", { class: "rows" }, open.map((alert) => this.row(alert))) : late ? null : quiet(evaluatedAt),
      past.length ? history(past) : null,
    ]);
  }

  showTrouble(trouble) {
    renderOnce(this.list, ["trouble", trouble.detail], () => notice("bad", "Alerts are unavailable.", trouble.detail));
  }

  row(alert) {
    const { rule, state, value } = alert;
    return h(
      "li",
      { key: alert.fingerprint, "data-alert": rule.name, "data-state": state },
      h("span", { class: "badge", "data-kind": state === "firing" ? rule.severity : "pending" }, state),
      h(
        "div",
        { class: "grow" },
        h("strong", {}, rule.name),
        h("p", { class: "muted" }, `${sentence(rule)}. Since ${dateTime(alert.firing_at ?? alert.pending_at)}.`),
      ),
      h("span", { class: "figure" }, metricValue(rule.metric, value)),
      h("button", { type: "button", class: "quiet", "aria-label": `Show the plot of ${rule.name}`, onclick: () => this.follow(rule.metric) }, "Plot"),
    );
  }
}

/** The headline as `{state, text}`. `known` is null while alerts are unknown; `isStale` is whether the figures are old. */
export function verdictOf(aggregate, known, isStale) {
  if (known === null) return UNKNOWN;
  const firing = known.alerts.filter((alert) => alert.state === "firing");
  const pending = known.alerts.filter((alert) => alert.state === "pending");
  if (firing.length) {
    const names = firing.map((alert) => alert.rule.name).join(", ");
    return { state: firing.some((alert) => alert.rule.severity === "critical") ? "critical" : "warning", text: `Firing: ${names}` };
  }
  if (pending.length) return { state: "pending", text: `Watching: ${pending.map((alert) => alert.rule.name).join(", ")}` };
  if (known.isPending) return { state: "unknown", text: "Looking…" };
  if (isStale) return UNKNOWN;
  if (!aggregate.requests) return { state: "empty", text: "No traffic in this window" };
  return { state: "ok", text: "All thresholds OK" };
}

function quiet(evaluatedAt) {
  return h("p", { class: "empty" }, evaluatedAt === null ? "No rule has been checked yet." : "No active alerts.");
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
