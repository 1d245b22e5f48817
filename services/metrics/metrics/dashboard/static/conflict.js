// Two people changed the thresholds: shows both versions and lets the user choose.

import { h } from "./dom.js";
import { changedRules, differences } from "./rules.js";

/**
 * `name` is the edited rule, `base` the rules as they were read, `theirs` the current ones, `mine` the rule as entered
 * (null: deleted). Resolves to "mine" (overwrite the newest version), "theirs", or "" (Escape: not decided).
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
        h("h2", { id: "conflict-title" }, "Someone else changed the thresholds"),
        h("p", {}, `Version ${version} was saved while you were editing. Your change is not saved yet.`),
        fields.length ? table(name, fields) : h("p", {}, `Your ${name} equals the current version.`),
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
  const heads = ["Field", "Theirs (current)", "Yours"].map((head) => h("th", { scope: "col" }, head));
  const row = ([field, theirs, mine]) => h("tr", {}, h("th", { scope: "row" }, field), h("td", {}, theirs), h("td", {}, mine));
  return h(
    "div",
    { class: "scroll" },
    h("table", {}, h("caption", {}, `Where ${name} differs`), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, fields.map(row))),
  );
}
