// The form for a prediction: its scores, or how long to wait after reaching the limit.

import { Trouble, ask } from "./api.js";
import { h, isOff, labelHead, notice, panelHead, setOff } from "./dom.js";
import { clock, ms, percent } from "./format.js";

const EXAMPLE = "A thoughtful, moving film.";

export class Predict {
  constructor(place) {
    this.text = h("textarea", { id: "text", rows: "3", placeholder: EXAMPLE, "aria-describedby": "left" });
    this.button = h("button", { class: "primary" }, "Predict");
    this.left = h("span", { class: "muted", id: "left" });
    this.result = h("div", { id: "prediction", "aria-live": "polite" }, h("p", { class: "empty" }, "The result appears here, and in the plots a moment later."));
    const form = h(
      "form",
      { onsubmit: (event) => (event.preventDefault(), this.send()) },
      h("div", { class: "field" }, h("label", { for: "text" }, "Text"), this.text),
      h("div", { class: "actions" }, this.left, h("span", { class: "grow" }), this.button),
    );
    place.append(panelHead("try-title", "Try a prediction", "Sent through the edge and counted like any other."), form, this.result);
  }

  async send() {
    if (isOff(this.button)) return;
    setOff(this.button, true);
    try {
      const { body, headers } = await ask("POST", "/predict", { body: { text: this.text.value || EXAMPLE } });
      this.tellLeft(headers);
      this.result.replaceChildren(...answer(body));
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.result.replaceChildren(refusal(trouble));
      if (trouble.status === 429 && trouble.waitS) {
        this.wait(trouble.waitS);
        return;
      }
    }
    setOff(this.button, false);
  }

  tellLeft(headers) {
    const [limit, remaining] = [headers.get("X-RateLimit-Limit"), headers.get("X-RateLimit-Remaining")];
    this.left.textContent = limit ? `${remaining} of ${limit} predictions left this minute` : "";
  }

  /** Count down on the button until it is enabled again. */
  wait(seconds) {
    const until = Date.now() + seconds * 1000;
    this.left.textContent = "0 left";
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      setOff(this.button, left > 0);
      this.button.textContent = left > 0 ? `Wait ${left} s` : "Predict";
      if (left > 0) setTimeout(tick, 250);
      else this.left.textContent = "";
    };
    tick();
  }
}

function answer({ label, score, scores, cached, truncated, model, request_id: id, timing_ms: timing }) {
  const row = ([name, value]) =>
    h(
      "tr",
      {},
      labelHead(name),
      h("td", { class: "wide", "aria-hidden": "true" }, h("div", { class: "meter", vars: { "--share": value } }, h("span", { class: "bar-now" }))),
      h("td", {}, percent(value)),
    );
  const rows = Object.entries(scores).sort(([, a], [, b]) => b - a);
  const facts = [cached ? "cached" : `computed in ${ms(timing.inference)}`, `${ms(timing.total)} in total`, `${model.name} ${model.revision}`];
  if (truncated) facts.push("truncated");
  return [
    h("p", { class: "answer" }, h("strong", {}, label), ` ${percent(score)}`),
    h("table", {}, h("caption", { class: "hidden" }, "Scores"), h("tbody", {}, rows.map(row))),
    h("p", { class: "muted" }, `${facts.join(" · ")} · `, h("code", {}, id)),
  ];
}

function refusal(trouble) {
  if (trouble.status !== 429) return notice("bad", trouble.title, trouble.errors.map((error) => `${error.field}: ${error.message}`).join(" ") || trouble.detail);
  const until = trouble.waitS ? ` Try again at ${clock(Date.now() + trouble.waitS * 1000)}, in ${trouble.waitS} s.` : "";
  return notice("warning", "Limit reached", `${trouble.detail ?? "Too many requests."}${until}`);
}
