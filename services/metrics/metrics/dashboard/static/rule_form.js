// The dialog for one threshold rule. Errors from the server appear at the field they name.

import { h, isOff, setOff } from "./dom.js";
import { RULE_METRICS, WINDOWS, metricName, unitOf } from "./format.js";
import { side } from "./rules.js";

const FILTERS = ["label", "route", "model"];
const WINDOW_NAMES = Object.keys(WINDOWS);
const NAME = /^[a-z0-9][a-z0-9_.-]{0,63}$/;
const NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i; // a single comma is a decimal point
const GROUPED = /^[+-]?[1-9]\d{0,2}([,.' ]\d{3})*,\d{3}([.,]\d*)?$/; // 1,000 is ambiguous: a thousand or one
const NEW = { name: "", metric: "latency_ms.p95", above: 500, for_s: 60, keep_firing_for_s: 0, min_samples: 20, window: "5m", severity: "warning" };

const FIELDS = [
  { name: "name", label: "Name", help: "lower-case letters, digits, . _ -" },
  { name: "metric", label: "Metric", options: RULE_METRICS.map((metric) => [metric, metricName(metric)]) },
  { name: "side", label: "Fires when it is", options: [["above", "above"], ["below", "below"]] },
  { name: "limit", label: "Limit", number: true, hasUnit: true },
  { name: "resolve_at", label: "Resolves at", number: true, hasUnit: true, help: "empty: at the limit" },
  { name: "window", label: "Measured over", options: WINDOW_NAMES.map((name) => [name, name]) },
  { name: "for_s", label: "For at least (seconds)", number: true, isCount: true },
  { name: "keep_firing_for_s", label: "Keep firing for (seconds)", number: true, isCount: true },
  { name: "min_samples", label: "Minimum samples", number: true, isCount: true, help: "not for counts and throughput" },
  { name: "severity", label: "Severity", options: ["info", "warning", "critical"].map((name) => [name, name]) },
  { name: "where.label", label: "Only label", help: "empty: all; needed for label share" },
  { name: "where.route", label: "Only route", help: "empty: all" },
  { name: "where.model", label: "Only model", help: "empty: all" },
  { name: "reference", label: "Compared with", options: WINDOW_NAMES.map((name) => [name, `${name} before`]) },
];

/**
 * Edit `rule` (null: a new one). `save(rule)` is called with the entered rule, or with null to delete. It returns
 * `{done, errors, detail}` with fields relative to the rule. Resolves when the dialog closes; `late(answer)` is called
 * with an error that arrives later.
 */
export function editRule(rule, save, late) {
  return new Promise((resolve) => {
    const inputs = new Map(FIELDS.map((field) => [field.name, control(field, valuesOf(rule ?? NEW)[field.name])]));
    const unitFor = () => {
      const metric = inputs.get("metric").value;
      for (const unit of form.querySelectorAll(".unit")) unit.textContent = unitOf(metric)[0];
      inputs.get("reference").parentElement.hidden = !metric.startsWith("drift.");
    };
    const summary = h("p", { class: "error", role: "alert", hidden: true });
    const submit = h("button", { class: "primary" }, "Save");
    const form = h(
      "form",
      { novalidate: true, onsubmit: (event) => (event.preventDefault(), send(read(inputs))) },
      h("h2", { id: "rule-title" }, rule ? `Edit ${rule.name}` : "New threshold"),
      summary,
      h("div", { class: "fields" }, FIELDS.map((field) => wrapped(field, inputs.get(field.name)))),
      h(
        "div",
        { class: "actions" },
        rule ? h("button", { type: "button", class: "danger", onclick: () => send({ rule: null, errors: [] }) }, "Delete") : null,
        h("span", { class: "grow" }),
        h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
        submit,
      ),
    );
    const dialog = h("dialog", { "aria-labelledby": "rule-title", onclose: () => (dialog.remove(), resolve()) }, form);

    inputs.get("metric").addEventListener("change", unitFor);
    unitFor();

    async function send({ rule: entered, errors }) {
      if (isOff(submit)) return;
      mark(inputs, summary, errors);
      if (errors.length) return;
      setOff(submit, true);
      const answer = await save(entered);
      setOff(submit, false);
      if (answer.done) dialog.close();
      else if (dialog.open) mark(inputs, summary, answer.errors, answer.detail);
      else late(answer);
    }

    document.body.append(dialog);
    dialog.showModal();
  });
}

function valuesOf(rule) {
  const where = Object.fromEntries(FILTERS.map((name) => [`where.${name}`, rule.where?.[name] ?? ""]));
  const scale = unitOf(rule.metric)[1];
  const entered = (limit) => (limit === undefined || limit === null ? "" : Number((limit * scale).toPrecision(15)));
  return { ...rule, ...where, side: side(rule), limit: entered(rule.above ?? rule.below), resolve_at: entered(rule.resolve_at), reference: rule.reference ?? "24h" };
}

function control(field, value) {
  const shared = { id: `rule-${field.name}`, name: field.name, "aria-describedby": `rule-${field.name}-help` };
  if (field.options) {
    const option = ([key, text]) => h("option", { value: key, selected: key === (value ?? "") }, text);
    return h("select", shared, field.options.map(option));
  }
  const input = h("input", { ...shared, autocomplete: "off", ...(field.number ? { inputmode: "decimal" } : { spellcheck: "false" }) });
  input.value = value ?? "";
  return input;
}

function wrapped(field, input) {
  return h(
    "div",
    { class: "field" },
    h("label", { for: input.id }, field.label),
    field.hasUnit ? h("div", { class: "with-unit" }, input, h("span", { class: "unit muted" })) : input,
    h("p", { class: "help", id: `${input.id}-help`, "data-help": field.help ?? "" }, field.help ?? ""),
  );
}

function read(inputs) {
  const errors = [];
  const text = (name) => inputs.get(name).value.trim();
  const wrong = (field, message) => errors.push({ field, message });
  const [unit, scale] = unitOf(text("metric"));
  const limit = (name) => {
    const value = number(name);
    if (unit === "%" && (value < 0 || value > 100)) wrong(name, "A share is between 0 and 100 %.");
    return value === undefined ? undefined : Number((value / scale).toPrecision(15));
  };
  const number = (name) => {
    if (text(name) === "") return undefined;
    if (GROUPED.test(text(name))) wrong(name, "Use a number without separators, with a decimal point.");
    else if (!NUMBER.test(text(name))) wrong(name, "Must be a number.");
    return Number(text(name).replace(",", "."));
  };
  const where = Object.fromEntries(FILTERS.map((name) => [name, text(`where.${name}`)]).filter(([, value]) => value));
  const rule = {
    name: text("name"),
    metric: text("metric"),
    [text("side")]: limit("limit"),
    resolve_at: limit("resolve_at"),
    for_s: number("for_s"),
    keep_firing_for_s: number("keep_firing_for_s"),
    min_samples: number("min_samples"),
    window: text("window"),
    severity: text("severity"),
    reference: text("metric").startsWith("drift.") ? text("reference") : undefined,
    where: Object.keys(where).length ? where : undefined,
  };
  if (text("limit") === "") wrong("limit", "Give a number.");
  if (!NAME.test(rule.name)) wrong("name", "Use lower-case letters, digits and . _ -, at most 64.");
  for (const { name } of FIELDS.filter((field) => field.isCount)) if (rule[name] !== undefined && !(Number.isInteger(rule[name]) && rule[name] >= 0)) wrong(name, "Must be a whole number, 0 or more.");
  return { rule, errors };
}

/** Show errors at their fields and the others on top. The first invalid field gets the focus. */
function mark(inputs, summary, errors, detail = "") {
  const named = errors.map(({ field, message }) => ({ field: field === "above" || field === "below" ? "limit" : field, message }));
  for (const [name, input] of inputs) {
    const found = named.find((error) => error.field === name);
    const help = document.getElementById(`${input.id}-help`);
    help.textContent = found ? found.message : help.dataset.help;
    help.classList.toggle("error", Boolean(found));
    if (found) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
  const elsewhere = named.filter((error) => !inputs.has(error.field)).map((error) => error.message);
  summary.textContent = elsewhere.join(" ") || (named.length ? "" : detail);
  summary.hidden = summary.textContent === "";
  inputs.get(named.find((error) => inputs.has(error.field))?.field)?.focus();
}
