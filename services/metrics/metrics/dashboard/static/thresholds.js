// The thresholds panel: the state of each rule, and its editor, which never overwrites an unseen version.

import { Trouble, ask, askAsAdmin } from "./api.js";
import { resolveConflict } from "./conflict.js";
import { h, notice, panelHead, renderOnce } from "./dom.js";
import { metricValue } from "./format.js";
import { editRule } from "./rule_form.js";
import { sentence, withRule } from "./rules.js";
import { forgetToken, keptToken, onToken } from "./token.js";

const PATH = "/metrics/thresholds";

export class Thresholds {
  constructor(place, onSaved) {
    this.onSaved = onSaved;
    this.list = h("div", { "data-list": true }, h("p", { class: "muted" }, "Loading…"));
    this.said = h("div", { class: "muted", role: "status" });
    const forget = h("button", { type: "button", class: "quiet", onclick: forgetToken, hidden: !keptToken() }, "Forget token");
    onToken((isKept) => (forget.hidden = !isKept));
    const add = h("button", { type: "button", class: "quiet", onclick: () => this.edit(null) }, "Add");
    place.append(panelHead("thresholds-title", "Thresholds", "An alert fires when a threshold stays breached.", forget, add), this.list, this.said);
  }

  /** `states` are the rules' states in the latest aggregate. */
  show(states) {
    const key = states.map(({ rule, current, breached }) => [rule, metricValue(rule.metric, current), breached]);
    renderOnce(this.list, key, () => {
      if (!states.length) return h("p", { class: "empty" }, "No rules. Add one to get an alert when a figure leaves its range.");
      return h("ul", { class: "rows" }, states.map((state) => this.row(state)));
    });
  }

  row({ rule, current, breached }) {
    const [kind, word] = breached === null ? ["unknown", "Not enough data"] : breached ? [rule.severity, "Breached"] : ["ok", "OK"];
    return h(
      "li",
      { key: rule.name, "data-rule": rule.name },
      h("span", { class: "badge", "data-kind": kind }, word),
      h("div", { class: "grow" }, h("strong", {}, rule.name), h("p", { class: "muted" }, sentence(rule))),
      h("span", { class: "figure" }, metricValue(rule.metric, current)),
      h("button", { type: "button", class: "quiet", "aria-label": `Edit ${rule.name}`, onclick: () => this.edit(rule.name) }, "Edit"),
    );
  }

  async edit(name) {
    let read = await this.readToEdit();
    if (read === null) return;
    const rule = name === null ? null : (read.rules.find((one) => one.name === name) ?? null);
    const save = async (entered) => {
      if (isTaken(read.rules, entered, name)) return { done: false, errors: [{ field: "name", message: "A rule with this name exists already." }] };
      const answer = await this.save(read, name ?? entered.name, entered);
      read = answer.read ?? read;
      return answer;
    };
    await editRule(rule, save, ({ errors, detail }) => this.say(notice("bad", "The last change was not saved.", errors.map(({ message }) => message).join(" ") || detail)));
  }

  /** Read the version to edit. Null if one is being read already, or after an error, which is shown. */
  async readToEdit() {
    if (this.isReading) return null;
    this.isReading = true;
    this.say("Reading the thresholds…");
    try {
      const read = await this.read();
      this.say("");
      return read;
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      this.say(notice("bad", "The thresholds are unavailable.", trouble.detail));
      return null;
    } finally {
      this.isReading = false;
    }
  }

  async read() {
    const { body, headers } = await ask("GET", PATH);
    return { rules: body.rules, etag: headers.get("ETag") };
  }

  /**
   * Replace the rule named `name` with `rule` (null: delete it). On a conflict the user decides. If it was not saved,
   * the result has `read`, the version to replace on the next try.
   */
  async save(read, name, rule) {
    const rules = withRule(read.rules, name, rule);
    try {
      const answer = await askAsAdmin("PUT", PATH, { body: { rules }, headers: { "If-Match": read.etag } });
      if (answer === null) return { done: false, errors: [], detail: "Not saved: it needs the admin token.", read };
      return this.end(`Saved version ${versionOf(answer.headers.get("ETag"))}.`);
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      if (trouble.status === 412) return this.conflict(read, name, rule);
      return { done: false, detail: trouble.detail ?? trouble.title, errors: errorsOf(trouble, rules, rule), read };
    }
  }

  async conflict(read, name, rule) {
    let newest;
    try {
      newest = await this.read();
    } catch (trouble) {
      if (!(trouble instanceof Trouble)) throw trouble;
      return { done: false, errors: [], detail: `Not saved: someone else changed the thresholds, and they are unavailable now. ${trouble.detail ?? trouble.title}` };
    }
    const version = versionOf(newest.etag);
    const choice = await resolveConflict({ name, base: read.rules, theirs: newest.rules, mine: rule, version });
    if (choice === "mine") return this.save(newest, name, rule);
    if (choice === "theirs") return this.end(`Kept version ${version}.`);
    return { done: false, errors: [], detail: `Not saved: someone else saved version ${version} meanwhile.` };
  }

  /** Show the result of the last action. */
  say(said) {
    this.said.replaceChildren(said);
  }

  end(said) {
    this.say(said);
    this.onSaved();
    return { done: true };
  }
}

/** Whether another rule already has the entered name. */
const isTaken = (rules, entered, edited) => entered !== null && entered.name !== edited && rules.some((rule) => rule.name === entered.name);

const versionOf = (etag) => etag.replaceAll('"', "");

/** The server names `rules.2.resolve_at`; the form knows `resolve_at`. */
function errorsOf(trouble, rules, rule) {
  const prefix = `rules.${rules.indexOf(rule)}.`;
  return trouble.errors.map(({ field, message }) => ({
    field: field.startsWith(prefix) ? field.slice(prefix.length) : "",
    message: message.replace(/^Value error, /, ""),
  }));
}
