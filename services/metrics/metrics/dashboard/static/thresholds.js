// Edits the rules, and never overwrites an unseen version.

import { ask, askAsAdmin, attempt } from "./api.js";
import { h, notice } from "./dom.js";
import { editRule } from "./rule_form.js";
import { sentence, withRule } from "./rules.js";
import { forgetToken, keptToken, onToken } from "./token.js";

const PATH = "/metrics/thresholds";

/** `buttons` belong in the head of a panel, `said` below its list. */
export class RuleEditor {
  constructor(onSaved) {
    this.onSaved = onSaved;
    this.said = h("div", { class: "muted said", role: "status" });
    const forget = h("button", { type: "button", class: "quiet", onclick: forgetToken, hidden: !keptToken() }, "Forget token");
    onToken((isKept) => (forget.hidden = !isKept));
    this.buttons = [forget, h("button", { type: "button", class: "quiet", onclick: () => this.edit(null) }, "Add")];
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
    const read = await attempt(
      async () => {
        const found = await this.read();
        this.say("");
        return found;
      },
      (trouble) => (this.say(notice("bad", "The thresholds are unavailable.", trouble.detail)), null),
    );
    this.isReading = false;
    return read;
  }

  async read() {
    const { body, headers } = await ask("GET", PATH);
    return { rules: body.rules, etag: headers.get("ETag") };
  }

  /**
   * Replace the rule named `name` with `rule` (null: delete it). If it was not saved, the result has `read`, the version
   * to replace on the next try.
   */
  save(read, name, rule) {
    const rules = withRule(read.rules, name, rule);
    return attempt(
      async () => {
        const answer = await askAsAdmin("PUT", PATH, { body: { rules }, headers: { "If-Match": read.etag } });
        if (answer === null) return { done: false, errors: [], detail: "Not saved: it needs the admin token.", read };
        if (rule !== null) return this.end(`Saved ${rule.name}.`);
        const deleted = read.rules.find((one) => one.name === name);
        return this.end(`Deleted ${name}. `, h("button", { type: "button", class: "quiet", onclick: () => this.undo(deleted) }, "Undo"));
      },
      (trouble) => (trouble.status === 412 ? this.conflict(name) : { done: false, detail: trouble.detail ?? trouble.title, errors: errorsOf(trouble, rules, rule), read }),
    );
  }

  conflict(name) {
    const refused = (rest, read) => ({ done: false, errors: [], detail: `Not saved: someone else changed the thresholds${rest}`, read });
    return attempt(
      async () => {
        const read = await this.read();
        const theirs = read.rules.find((rule) => rule.name === name);
        const now = theirs ? `${name} is now: ${sentence(theirs)}.` : `${name} does not exist now.`;
        return refused(` meanwhile. ${now} Save again to replace it.`, read);
      },
      (trouble) => refused(`, and they are unavailable now. ${trouble.detail ?? trouble.title}`),
    );
  }

  /** Put a deleted rule back. */
  async undo(rule) {
    const read = await this.readToEdit();
    const answer = read && (await this.save(read, rule.name, rule));
    if (answer && !answer.done) this.say(notice("bad", `${rule.name} was not restored.`, answer.detail));
  }

  /** Show the result of the last action. */
  say(...said) {
    this.said.replaceChildren(...said);
  }

  end(...said) {
    this.say(...said);
    this.onSaved();
    return { done: true };
  }
}

/** Whether another rule already has the entered name. */
const isTaken = (rules, entered, edited) => entered !== null && entered.name !== edited && rules.some((rule) => rule.name === entered.name);

/** The server names `rules.2.resolve_at`; the form knows `resolve_at`. */
function errorsOf(trouble, rules, rule) {
  const prefix = `rules.${rules.indexOf(rule)}.`;
  return trouble.errors.map(({ field, message }) => ({
    field: field.startsWith(prefix) ? field.slice(prefix.length) : "",
    message: message.replace(/^Value error, /, ""),
  }));
}
