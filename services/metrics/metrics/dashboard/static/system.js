// The model card, and the state of each part of the system.

import { h, notice, panelHead, renderOnce, setText } from "./dom.js";
import { count, ms } from "./format.js";

const LIMITS = { exact: "exact", local: "per replica", open: "not enforced", closed: "refusing" };
const WRITER = {
  no_key: "no key: reports by rules",
  not_asked: "not asked yet",
  ok: "ok",
  not_found: "not found",
  unauthorised: "key refused",
  invalid: "request refused",
  failing: "failing",
};

export class ModelPanel {
  constructor(place) {
    this.body = h("div", {}, h("p", { class: "muted" }, "Loading…"));
    place.append(panelHead("model-title", "Model", null), this.body);
  }

  show({ models }) {
    renderOnce(this.body, models, () => models.map(card));
  }

  showTrouble(trouble) {
    renderOnce(this.body, ["trouble", trouble.detail], () => notice("bad", "The model is unavailable.", trouble.detail));
  }
}

function card(model) {
  const facts = [
    ["Revision", h("code", {}, model.revision)],
    ["Labels", model.labels.join(", ")],
    ["Engine", `${model.engine} on ${model.device}`],
    ["Reads", `${count(model.limits.max_tokens)} tokens, ${count(model.limits.max_characters)} characters, ${count(model.limits.max_texts)} texts a batch`],
    ["Licence", model.license],
    ["Trained on", model.training_data.join(", ")],
  ];
  return h(
    "div",
    {},
    h("h3", {}, model.name),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("details", {}, h("summary", {}, "Known weaknesses"), h("ul", {}, model.known_weaknesses.map((one) => h("li", {}, one)))),
  );
}

export class SystemPanel {
  constructor(place) {
    this.body = h("div", {}, h("p", { class: "muted" }, "Loading…"));
    this.status = h("span", { class: "badge" }, "…");
    place.append(panelHead("system-title", "System", "As seen by the edge.", this.status), this.body);
  }

  show(health) {
    setText(this.status, health.status);
    this.status.dataset.kind = { ok: "ok", degraded: "warning", failed: "critical" }[health.status];
    const parts = [["PostgreSQL", health.database], ["Redis", health.redis], ...Object.entries(health.upstreams)];
    const key = [health.limits, health.model, parts.map(([, part]) => [part.status, coarse(part.latency_ms)])];
    renderOnce(this.body, key, () => {
      const rows = parts.map(([name, part]) => row(name, part.status === "ok" ? "ok" : "critical", part.status, coarse(part.latency_ms)));
      rows.push(row("limits", health.limits === "exact" ? "ok" : "warning", LIMITS[health.limits], ""));
      if (health.model) rows.push(row("report writer", health.model.state === "ok" ? "ok" : "unknown", WRITER[health.model.state], health.model.name ?? ""));
      return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Services as a table" }, h("table", {}, h("caption", { class: "hidden" }, "Parts"), h("tbody", {}, rows)));
    });
  }

  showTrouble(trouble) {
    setText(this.status, "no answer");
    this.status.dataset.kind = "critical";
    renderOnce(this.body, ["trouble", trouble.detail], () => notice("bad", "The edge does not respond.", trouble.detail));
  }
}

function row(name, kind, word, detail) {
  return h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("span", { class: "badge", "data-kind": kind }, word)), h("td", {}, detail));
}

/** Fine enough to read, coarse enough not to flicker. */
function coarse(latencyMs) {
  if (latencyMs === null || latencyMs === undefined) return "";
  return latencyMs < 5 ? "under 5 ms" : latencyMs < 50 ? "under 50 ms" : ms(latencyMs);
}
