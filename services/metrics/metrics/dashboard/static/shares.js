// Errors, label mix, confidence and drift, compared with the previous window. The tables are the plots.

import { h, labelHead, renderOnce } from "./dom.js";
import { count, percent, score } from "./format.js";

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

/** Shares of the whole as a table whose counts list such predictions. */
class Mix extends Shares {
  constructor(id, title, hint, filter) {
    super(id, title, hint);
    Object.assign(this, { title, filter });
  }

  /** `rows` are {name, share, n, before, filter}; `before` is text. */
  showRows(rows, empty) {
    this.render(rows, rows.length === 0, () => table(this.title, ["Kind", null, "Share", "Count", "Before"], rows.map((row) => this.row(row))), empty);
  }

  row({ name, share, n, before, barBefore = null, filter }) {
    const list = h("button", { type: "button", class: "link", "aria-label": `${count(n)}, list ${name}`, onclick: () => this.filter(filter) }, count(n));
    const cells = [percent(share), list, before].map((cell) => h("td", {}, cell));
    return h("tr", { key: name }, labelHead(name), h("td", { class: "wide", "aria-hidden": "true" }, bar(share, barBefore)), cells);
  }
}

export class Labels extends Mix {
  constructor(filter) {
    super("labels", "Label mix", "now, and in the window before", filter);
  }

  show({ labels, previous }) {
    const before = new Map(previous.labels.map((one) => [one.label, one.share]));
    const row = ({ label, share, count: n }) => ({ name: label, share, n, before: percent(before.get(label)), barBefore: before.get(label), filter: { label } });
    this.showRows(labels.map(row), "No answered predictions in this window.");
  }
}

export class Errors extends Mix {
  constructor(filter) {
    super("errors", "Errors by kind", "share of requests that were not limited", filter);
  }

  show({ errors, requests, rate_limited: limited, previous }) {
    const kinds = Object.entries(errors).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
    const row = ([outcome, n]) => ({ name: outcome.replaceAll("_", " "), share: n / (requests - limited), n, before: count(previous.errors[outcome] ?? 0), filter: { outcome } });
    this.showRows(kinds.map(row), "No errors in this window.");
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
