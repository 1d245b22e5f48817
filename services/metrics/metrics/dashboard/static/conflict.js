// Two people changed the thresholds: shows both versions and lets the reader choose.

import { h } from "./dom.js";
import { changedRules, differences } from "./rules.js";

/**
 * `name` is the rule under edit: `base` the rules it was read from, `theirs` those in force now, `mine` the rule as
 * entered (null: deleted). Resolves to "mine" (write it over the newest version), "theirs", or "" (Escape: neither yet).
 */
export function resolveConflict({ name, base, theirs, mine, version }) {
  return new Promise((resolve) => {
    const inForce = theirs.find((rule) => rule.name === name) ?? null;
    const fields = differences(inForce, mine);
    const others = changedRules(base, theirs).filter((changed) => changed !== name);
    const dialog = h(
      "dialog",
      { "aria-labelledby": "conflict-title", onclose: () => (dialog.remove(), resolve(dialog.returnValue)) },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "conflict-title" }, "Somebody else changed the thresholds"),
        h("p", {}, `Version ${version} was saved while you were editing. Nothing of yours was written yet.`),
        fields.length ? table(name, fields) : h("p", {}, `Your ${name} is what is in force already.`),
        others.length ? h("p", { class: "muted" }, `Also changed in version ${version}, and kept either way: ${others.join(", ")}.`) : null,
        h(
          "div",
          { class: "actions" },
          h("button", { class: "quiet", value: "theirs" }, "Keep theirs"),
          h("button", { class: "primary", value: "mine" }, "Apply mine to the newest version"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

function table(name, fields) {
  const heads = ["Field", "Theirs, in force", "Yours"].map((head) => h("th", { scope: "col" }, head));
  const row = ([field, theirs, mine]) => h("tr", {}, h("th", { scope: "row" }, field), h("td", {}, theirs), h("td", {}, mine));
  return h(
    "div",
    { class: "scroll" },
    h("table", {}, h("caption", {}, `Where ${name} differs`), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, fields.map(row))),
  );
}
