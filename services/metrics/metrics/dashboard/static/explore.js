// Single predictions of the page's range: the least confident or the newest, filtered, with true labels and accuracy.

import { askAsAdmin, attempt } from "./api.js";
import { goTo, h, notice, panelHead, renderOnce, setText } from "./dom.js";
import { count, dateTime, ms, percent, score } from "./format.js";

const ORDERS = [["score", "least confident first"], ["time", "newest first"]];
const OUTCOMES = ["", "ok", "invalid", "timeout", "unavailable", "bad_gateway", "error"];
const LIMIT = 25;

export class Explore {
  constructor(place, range) {
    Object.assign(this, { place, range, labels: [], rows: null });
    const input = (name) => h("input", { id: `find-${name}`, name, autocomplete: "off", spellcheck: "false" });
    const select = (name, options) => h("select", { id: `find-${name}`, name }, options.map(([value, text]) => h("option", { value }, text)));
    const field = (control, text) => h("div", { class: "field" }, h("label", { for: control.id }, text), control);
    this.form = h(
      "form",
      { class: "filters", onsubmit: (event) => (event.preventDefault(), this.load()) },
      field(select("order", ORDERS), "Order"),
      field(input("label"), "Label"),
      field(input("route"), "Route"),
      field(select("outcome", OUTCOMES.map((name) => [name, name.replaceAll("_", " ") || "any"])), "Outcome"),
      field(input("max_score"), "Score up to"),
      field(input("request_id"), "Request ID"),
      h("button", { class: "primary" }, "List"),
    );
    this.note = h("p", { class: "muted" });
    this.said = h("div", { role: "status", class: "muted said" });
    this.body = h("div", {}, h("p", { class: "empty" }, "Single predictions need the admin token. Texts are listed only if EVENTS_STORE_TEXT is set."));
    place.append(panelHead("predictions-title", "Predictions", null), this.note, this.form, this.said, this.body);
  }

  /** `feedback` of the aggregate: how often predictions matched their true labels. */
  show({ labels, feedback }) {
    this.labels = labels.map((one) => one.label);
    const known = feedback?.n ? `${percent(feedback.accuracy)} of ${count(feedback.n)} predictions with a true label are correct; ${percent(feedback.coverage)} of all have one.` : "No prediction of this range has a true label yet. Mark wrong ones here, or send them to POST /metrics/feedback.";
    setText(this.note, known);
  }

  /** List what matches `filters`, newest first, for a row of another panel. */
  filter(filters) {
    this.form.reset();
    for (const [name, value] of Object.entries({ order: "time", ...filters })) this.form.elements[name].value = value;
    goTo(this.place);
    return this.load();
  }

  async load() {
    const wanted = [...new FormData(this.form)].filter(([, value]) => value.trim()).map(([name, value]) => [name, value.trim()]);
    const query = new URLSearchParams([...Object.entries(this.range()), ...wanted, ["limit", LIMIT]]);
    await this.attempt("The predictions are unavailable.", async () => {
      const answer = await askAsAdmin("GET", `/metrics/predictions?${query}`);
      if (answer === null) return;
      this.rows = answer.body.predictions;
      this.said.replaceChildren();
      renderOnce(this.body, this.rows, () => (this.rows.length ? this.table() : h("p", { class: "empty" }, "No prediction matches.")));
    });
  }

  table() {
    const heads = ["Time", "Label", "Score", "Route", "Latency", "Text", "Request ID", ""].map((head) => h("th", { scope: "col" }, head));
    const table = h("table", {}, h("caption", { class: "hidden" }, "Predictions"), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, this.rows.map((row) => this.row(row))));
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Predictions as a table" }, table);
  }

  row(row) {
    const { at, outcome, label, score: sure, route, latency_us: latency, text, characters, cached, request_id: request } = row;
    const cells = [label ?? outcome.replaceAll("_", " "), score(sure), route, `${ms(latency / 1000)}${cached ? ", cached" : ""}`, text ?? `${count(characters)} characters`];
    const others = label === null ? [] : this.labels.filter((one) => one !== label).slice(0, 4);
    const button = (actual) => h("button", { type: "button", class: "quiet", title: `Record ${actual} as the true label`, onclick: () => this.mark(row, actual) }, others.length > 1 ? `It was ${actual}` : "This was wrong");
    return h("tr", { key: row.id }, h("th", { scope: "row" }, dateTime(at)), cells.map((cell) => h("td", {}, cell)), h("td", {}, h("code", {}, request)), h("td", {}, others.map(button)));
  }

  mark({ id, at }, label) {
    return this.attempt("The true label was not recorded.", async () => {
      const answer = await askAsAdmin("POST", "/metrics/feedback", { body: { feedback: [{ prediction_id: id, label }] } });
      if (answer !== null) this.said.replaceChildren(`Prediction of ${dateTime(at)}: ${answer.body.results[0].status.replace("_", " ")}, ${label}.`);
    });
  }

  attempt(title, work) {
    return attempt(work, ({ errors, detail }) => this.said.replaceChildren(notice("bad", title, errors.map((error) => `${error.field}: ${error.message}`).join(" ") || detail)));
  }
}
