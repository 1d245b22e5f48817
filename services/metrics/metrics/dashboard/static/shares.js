// Errors, label mix, confidence and drift, compared with the previous window. The tables are the plots.

import { h, labelHead, renderOnce } from "./dom.js";
import { NONE, count, percent, score } from "./format.js";

const BORDER = 0.1; // from here on a distribution has drifted
const DRIFT_FULL = 0.3; // the length of a full bar
const KINDS = { labels: "Labels", confidence: "Confidence", length: "Length" };

class Shares {
  constructor(id, title, hint) {
    this.body = h("div", { class: "shares" });
    this.figure = h(
      "figure",
      { class: "panel plot", id: `plot-${id}`, tabindex: "-1", "data-state": "loading", "aria-labelledby": `title-${id}` },
      h("figcaption", {}, h("h3", { id: `title-${id}` }, title), h("span", { class: "muted" }, hint)),
      this.body,
    );
  }

  render(key, isEmpty, make, empty) {
    this.figure.dataset.state = isEmpty ? "empty" : "ready";
    renderOnce(this.body, key, () => (isEmpty ? h("p", { class: "empty" }, empty) : make()));
  }

  highlight() {
    this.figure.classList.add("highlight");
    clearTimeout(this.fading);
    this.fading = setTimeout(() => this.figure.classList.remove("highlight"), 4000);
  }
}

/** A button in a table's first column that lists such predictions. */
const listed = (name, text, list) => h("button", { type: "button", class: "link", "aria-label": `List the predictions of ${name}`, onclick: list }, text);

export class Labels extends Shares {
  constructor(filter) {
    super("labels", "Label mix", "now, and in the window before");
    this.filter = filter;
  }

  show({ labels, previous }) {
    const before = new Map(previous.labels.map((one) => [one.label, one.share]));
    this.render([labels, previous.labels], labels.length === 0, () => this.table(labels, before), "No answered predictions in this window.");
  }

  table(labels, before) {
    const row = ({ label, share, count: n }) =>
      h(
        "tr",
        { key: label },
        labelHead(label),
        h("td", { class: "wide", "aria-hidden": "true" }, bar(share, before.get(label) ?? null)),
        h("td", {}, percent(share)),
        h("td", {}, listed(label, count(n), () => this.filter({ label }))),
        h("td", {}, before.has(label) ? percent(before.get(label)) : NONE),
      );
    return table("Label mix", ["Label", null, "Share", "Count", "Before"], labels.map(row));
  }
}

export class Errors extends Shares {
  constructor(filter) {
    super("errors", "Errors by kind", "share of requests that were not limited");
    this.filter = filter;
  }

  show({ errors, requests, rate_limited: limited, previous }) {
    const kinds = Object.entries(errors).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
    this.render([kinds, requests, limited, previous.errors], kinds.length === 0, () => this.table(kinds, requests - limited, previous.errors), "No errors in this window.");
  }

  table(kinds, whole, before) {
    const row = ([outcome, n]) => {
      const name = outcome.replaceAll("_", " ");
      return h(
        "tr",
        { key: outcome },
        h("th", { scope: "row" }, name),
        h("td", { class: "wide", "aria-hidden": "true" }, bar(n / whole, null)),
        h("td", {}, percent(n / whole)),
        h("td", {}, listed(name, count(n), () => this.filter({ outcome }))),
        h("td", {}, count(before[outcome] ?? 0)),
      );
    };
    return table("Errors by kind", ["Kind", null, "Share", "Count", "Before"], kinds.map(row));
  }
}

export class Confidence extends Shares {
  constructor() {
    super("confidence", "Confidence", "how sure the model is");
  }

  show({ confidence, previous }) {
    const n = confidence.histogram.reduce((sum, one) => sum + one, 0);
    this.render([confidence, previous.confidence], n === 0, () => this.chart(confidence, previous.confidence), "No scored predictions in this window.");
  }

  chart(now, before) {
    const [shares, sharesBefore] = [sharesOf(now.histogram), sharesOf(before.histogram)];
    const tallest = Math.max(...shares, ...sharesBefore);
    const column = (share, i) =>
      h(
        "div",
        { class: "column", vars: { "--now": share / tallest, "--before": sharesBefore[i] / tallest } },
        h("span", { class: "column-now" }),
        h("span", { class: "column-before" }),
      );
    const text = `Mean ${score(now.mean)}, before ${score(before.mean)}`;
    const rows = shares.map((share, i) =>
      h("tr", {}, h("th", { scope: "row" }, tenth(i)), h("td", {}, percent(share)), h("td", {}, count(now.histogram[i])), h("td", {}, percent(sharesBefore[i]))),
    );
    return [
      h(
        "ul",
        { class: "legend" },
        h("li", {}, h("span", { class: "swatch block" }), "now", h("span", { class: "legend-value" }, `mean ${score(now.mean)}`)),
        h("li", {}, h("span", { class: "swatch block before" }), "before", h("span", { class: "legend-value" }, `mean ${score(before.mean)}`)),
      ),
      h("div", { class: "columns", role: "img", "aria-label": `Confidence: ${text}. The table below has every value.` }, shares.map(column)),
      h("div", { class: "columns-axis muted", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, "0.5"), h("span", {}, "1")),
      h("details", {}, h("summary", {}, "Show as table"), table("Confidence", ["Score", "Share", "Count", "Before"], rows)),
    ];
  }
}

export class Drift extends Shares {
  constructor() {
    super("drift", "Drift", "vs the previous day, adjusted for sampling noise");
  }

  show(report, trouble) {
    if (trouble) {
      this.render(["trouble", trouble.detail], true, null, `Unavailable: ${trouble.detail ?? trouble.title}`);
      return;
    }
    const rows = Object.keys(KINDS).map((kind) => [kind, report[kind]]);
    const isEmpty = rows.every(([, drift]) => drift.value === null);
    this.render(rows, isEmpty, () => this.table(rows), "Needs predictions in this window and in the previous day.");
  }

  table(rows) {
    const row = ([kind, { value, drifted, n, reference_n: before }]) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, KINDS[kind]),
        h("td", { class: "wide", "aria-hidden": "true" }, h("div", { class: "meter drift", vars: { "--share": fraction(value), "--border": BORDER / DRIFT_FULL } }, h("span", { class: "bar-now", "data-bad": drifted === true }), h("span", { class: "bar-border" }))),
        h("td", {}, score(value)),
        h("td", {}, h("span", { class: "badge", "data-kind": drifted === null ? "unknown" : drifted ? "warning" : "ok" }, drifted === null ? "not enough data" : drifted ? "drifted" : "stable")),
        h("td", {}, `${count(n)} / ${count(before)}`),
      );
    return table("Drift", ["Of", null, "PSI", "Verdict", "n / before"], rows.map(row));
  }
}

function bar(share, before) {
  return h(
    "div",
    { class: "meter", vars: { "--share": share, "--before": before ?? 0 } },
    h("span", { class: "bar-now" }),
    before === null ? null : h("span", { class: "bar-before" }),
  );
}

function table(caption, heads, rows) {
  const cell = (text) => (text === null ? h("td", { "aria-hidden": "true" }) : h("th", { scope: "col" }, text));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption} as a table` },
    h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, heads.map(cell))), h("tbody", {}, rows)),
  );
}

const tenth = (i) => `${(i / 10).toFixed(1)}–${((i + 1) / 10).toFixed(1)}`;
const fraction = (value) => Math.min(1, (value ?? 0) / DRIFT_FULL);

function sharesOf(histogram) {
  const n = histogram.reduce((sum, one) => sum + one, 0);
  return histogram.map((one) => (n ? one / n : 0));
}
