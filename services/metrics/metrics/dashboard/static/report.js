// The performance report: findings, their author, and evidence that links to the plots.

import { Trouble, ask } from "./api.js";
import { h, isOff, notice, panelHead, setOff } from "./dom.js";
import { WINDOWS, clock, count, dateTime, figureValue, metricName } from "./format.js";

const LONGEST = "7d"; // the longest range of a report
const ALIGNED_MS = 300_000;
const TIMEOUT_MS = 75_000; // the edge answers with an error after 60 s
const READINGS = { current: "", previous: "before", delta_abs: "change", delta_pct: "relative change", threshold: "limit" };
const REASONS = {
  no_key: "no GEMINI_API_KEY is set",
  no_traffic: "there is no traffic to write about",
  cache_unavailable: "the cache is unavailable",
  invalid_answer: "the model's answer was not valid",
  quota: "the quota of calls is used up",
  blocked: "the model refused",
  truncated: "the model's answer was too long",
  model_not_found: "the model is not known",
  upstream: "the model's service failed",
  timeout: "the model was too slow",
};

export class ReportPanel {
  /** `follow(metric)` shows the plot of a metric. `metricOf(rule)` returns the metric of a rule, by name. */
  constructor(place, { range, follow, metricOf }) {
    Object.assign(this, { range, follow, metricOf });
    this.button = h("button", { type: "button", class: "primary", onclick: () => this.load() }, "Generate report");
    this.body = h(
      "div",
      { id: "report-body", "aria-live": "polite" },
      h("p", { class: "empty" }, "What changed in the selected window, the likely cause, and what to do. Every figure is looked up."),
    );
    place.append(panelHead("report-title", "Performance report", null, this.button), this.body);
  }

  async load() {
    if (isOff(this.button)) return;
    const { asked, remark } = reported(this.range());
    setOff(this.button, true);
    this.body.setAttribute("aria-busy", "true");
    this.body.replaceChildren(h("p", { class: "muted" }, "Writing…"), h("div", { class: "skeleton" }), h("div", { class: "skeleton" }));
    try {
      const { body } = await ask("POST", "/analyze/performance", { body: asked, timeoutMs: TIMEOUT_MS });
      this.body.replaceChildren(...this.lay(body, remark));
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      const wait = trouble.waitS ? ` Try again in ${trouble.waitS} s.` : "";
      this.body.replaceChildren(notice("bad", trouble.title, `${trouble.detail ?? ""}${wait}`));
    }
    this.body.removeAttribute("aria-busy");
    setOff(this.button, false);
    this.button.textContent = "Regenerate";
  }

  lay(report, remark) {
    const figures = new Map(report.figures.map((figure) => [figure.id, figure]));
    return [
      h("p", { class: "byline muted" }, h("span", { class: "badge", "data-kind": kindOf(report.status) }, report.status.replace("_", " ")), ` ${byline(report)}`),
      remark ? h("p", { class: "muted" }, remark) : null,
      h("p", { class: "lead" }, report.summary),
      this.evidence(onlyInSummary(report), figures),
      report.findings.length ? h("h3", {}, "Findings") : null,
      report.findings.length ? h("ul", { class: "findings" }, report.findings.map((one) => this.finding(one, figures))) : null,
      report.recommendations.length ? h("h3", {}, "What to do") : null,
      report.recommendations.length ? h("ol", { class: "findings" }, report.recommendations.map((one) => this.recommendation(one))) : null,
      report.interpretation ? h("p", { class: "interpretation" }, h("strong", {}, `Interpretation by ${report.model}, not verified: `), report.interpretation) : null,
      report.limitations.length ? h("p", { class: "muted" }, `Limits of this report: ${report.limitations.join(" ")}`) : null,
    ].filter(Boolean);
  }

  finding({ title, severity, detail, evidence, cause, confidence }, figures) {
    return h(
      "li",
      { "data-kind": severity },
      h("p", {}, h("span", { class: "badge", "data-kind": severity }, severity), " ", h("strong", {}, title)),
      h("p", {}, detail),
      cause ? h("p", {}, h("strong", {}, "Likely cause: "), cause, h("span", { class: "muted" }, ` ${confidence} confidence`)) : null,
      this.evidence(evidence, figures),
    );
  }

  recommendation({ action, priority, how }) {
    return h("li", {}, h("p", {}, h("strong", {}, action), h("span", { class: "muted" }, ` ${priority} priority`)), h("p", {}, h("code", {}, how)));
  }

  evidence(ids, figures) {
    const chip = (figure) =>
      h(
        "li",
        {},
        h(
          "button",
          { type: "button", class: "chip", "data-metric": figure.metric, title: `${figure.method}${figure.n === null ? "" : `, n = ${count(figure.n)}`}`, onclick: () => this.follow(this.shown(figure.metric)) },
          h("span", { class: "muted" }, [this.name(figure.metric), READINGS[figure.window]].filter(Boolean).join(", ")),
          ` ${figureValue(figure)}`,
        ),
      );
    const shown = ids.map((id) => figures.get(id)).filter(Boolean);
    return shown.length ? h("ul", { class: "chips", "aria-label": "Evidence" }, shown.map(chip)) : null;
  }

  /** A rule's evidence is the plot of its metric. */
  shown(metric) {
    return metric.startsWith("rule.") ? (this.metricOf(metric.slice("rule.".length)) ?? metric) : metric;
  }

  name(metric) {
    const label = metric.startsWith("label_share.") ? `share of ${metric.slice("label_share.".length)}` : null;
    return label ?? metricName(this.shown(metric));
  }
}

/** The range of a report: the page's, within what the analyst accepts. */
function reported({ window, start, end }) {
  if (window) return window === "30d" ? { asked: { window: LONGEST }, remark: `Reports reach back ${WINDOWS[LONGEST]} at most.` } : { asked: { window }, remark: null };
  const aligned = (time, round) => new Date(round(Date.parse(time) / ALIGNED_MS) * ALIGNED_MS).toISOString();
  const asked = { start: aligned(start, Math.floor), end: aligned(end, Math.ceil) };
  return { asked, remark: `Reports are of whole 5 minutes: ${dateTime(asked.start)} to ${dateTime(asked.end)}.` };
}

/** Ids of figures that no finding names. */
function onlyInSummary({ figures, findings }) {
  const named = new Set(findings.flatMap((one) => one.evidence));
  return figures.map((figure) => figure.id).filter((id) => !named.has(id));
}

function kindOf(status) {
  return { healthy: "ok", degraded: "warning", critical: "critical", insufficient_data: "unknown" }[status] ?? "unknown";
}

function byline({ source, model, fallback_reason: reason, generated_at: at, windows, cache }) {
  const author = source === "ai" ? `Selected by ${model}` : `Selected by rules${reason ? `, because ${REASONS[reason] ?? reason}` : ""}`;
  const window = windows.name ? `, on the last ${WINDOWS[windows.name]}` : "";
  const age = cache === "miss" ? "" : `, ${cache === "hit" ? "cached" : "stale"}, ${Math.max(0, Math.round((Date.now() - Date.parse(at)) / 1000))} s old`;
  return `${author}, at ${clock(at)}${window}${age}.`;
}
