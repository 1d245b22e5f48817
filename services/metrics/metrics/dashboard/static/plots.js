// The plots of the page, in order, and which of them shows a metric.

import { byId, goTo, setText } from "./dom.js";
import { count, ms, percent, rate } from "./format.js";
import { Plot } from "./plot.js";
import { columnsOf } from "./series.js";
import { Confidence, Drift, Errors, Labels } from "./shares.js";

const DASHES = [undefined, [8, 4], [2, 3]];
const line = (label, number, dash = 0) => ({ label, colour: `--series-${number}`, dash: DASHES[dash] });

const TIMED = [
  {
    id: "throughput",
    title: "Throughput",
    hint: "requests per second",
    format: rate,
    empty: "No requests in this window.",
    series: [line("answered", 1), line("limited", 2, 1), line("errors", 3, 2)],
  },
  {
    id: "latency",
    title: "Latency",
    hint: "of answered predictions",
    format: ms,
    empty: "No answered predictions in this window.",
    series: [line("p50", 4), line("p95", 1, 1), line("p99", 2, 2)],
  },
  {
    id: "rates",
    title: "Errors and limits",
    hint: "share of requests",
    format: percent,
    empty: "No errors, nothing limited.",
    series: [line("errors", 3), line("limited", 2, 1)],
  },
  {
    id: "work",
    title: "Queue and compute",
    hint: "p95, without cached answers",
    format: ms,
    empty: "Nothing was computed in this window.",
    series: [line("queue", 3), line("compute", 1, 1)],
  },
  {
    id: "cache",
    title: "Cached answers",
    hint: "share of answers",
    format: percent,
    empty: "No answers from the cache.",
    series: [line("cached", 1)],
  },
];

const LINES = {
  "latency_ms.p50": "p50",
  "latency_ms.p95": "p95",
  "latency_ms.p99": "p99",
  predictions: "answered",
  throughput_per_s: "answered",
  error_rate: "errors",
  limited_rate: "limited",
};

export class Plots {
  /** `zoom(start, end)` chooses a range, `filter({label})` or `filter({outcome})` lists such predictions. */
  constructor(place, zoom, filter) {
    this.timed = TIMED.map((spec) => new Plot(spec, zoom));
    this.shares = [new Errors(filter), new Labels(filter), new Confidence(), new Drift()];
    place.append(...[...this.timed, ...this.shares].map((plot) => plot.figure));
  }

  show(aggregate, alerts) {
    const columns = columnsOf(aggregate);
    for (const plot of this.timed) {
      const { times, columns: lines } = columns[plot.spec.id];
      plot.show(times, lines, { limits: limitsOf(aggregate, plot.spec.id), spans: spansOf(alerts, plot.spec.id, aggregate.range.end) });
    }
    const [, , , work, cache] = this.timed;
    const { tokens, computed_latency_ms: computed, latency_ms: all } = aggregate;
    setText(work.hint, tokens?.n ? `p95, without cached answers; texts have ${count(Math.round(tokens.mean))} tokens on average` : work.spec.hint);
    setText(cache.hint, computed?.n ? `latency p50 ${ms(all.p50)} with, ${ms(computed.p50)} without the cache` : cache.spec.hint);
    for (const plot of this.shares.slice(0, 3)) plot.show(aggregate);
  }

  showDrift(report, trouble) {
    this.shares[3].show(report, trouble);
  }

  /** Scroll to the plot of `metric` and highlight it, or to the alerts if there is none. */
  follow(metric) {
    const id = plotOf(metric);
    const plot = [...this.timed, ...this.shares].find((one) => one.figure.id === `plot-${id}`);
    goTo(plot?.figure ?? byId("alerts"));
    plot?.highlight(LINES[metric]);
  }
}

/** The id of the plot that shows a metric of a report or a rule. */
function plotOf(metric) {
  if (/^(requests|predictions|throughput_per_s)$/.test(metric)) return "throughput";
  if (metric.startsWith("latency_ms.")) return "latency";
  if (metric.startsWith("errors.")) return "errors";
  if (/^(queue_ms|compute_ms|tokens)\./.test(metric)) return "work";
  if (/^(cached_share$|computed_latency_ms\.)/.test(metric)) return "cache";
  if (/^(error_rate|limited_rate)$/.test(metric)) return "rates";
  if (metric.startsWith("label_share")) return "labels";
  if (metric.startsWith("confidence.")) return "confidence";
  return metric.startsWith("drift.") ? "drift" : null;
}

function limitsOf(aggregate, id) {
  const shown = id === "throughput" ? ["throughput_per_s"] : Object.keys(LINES);
  const rules = aggregate.thresholds.map((state) => state.rule);
  return rules.filter((rule) => plotOf(rule.metric) === id && shown.includes(rule.metric)).map((rule) => [rule.above ?? rule.below, rule.name]);
}

/** Firing spans end at `end` by the server's clock, because the browser's may be minutes off. */
function spansOf(alerts, id, end) {
  return alerts
    .filter((alert) => alert.firing_at && plotOf(alert.rule.metric) === id)
    .map((alert) => [Date.parse(alert.firing_at) / 1000, Date.parse(alert.resolved_at ?? end) / 1000]);
}
