// The admin token: entered in a dialog, kept for this tab only, sent only as Authorization.

import { h } from "./dom.js";

const KEY = "sluice-admin-token";
const SENDABLE = /^[!-~]+$/; // the characters that a header allows
const listeners = new Set();
let memory = "";

export function keptToken() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory; // storage is blocked
  }
}

export function forgetToken() {
  keep("");
}

/** Call `listener` when the token changes. */
export function onToken(listener) {
  listeners.add(listener);
}

/** Show the dialog. Resolves to whether a token was entered. */
export function askToken(wasRefused) {
  return new Promise((resolve) => {
    const input = h("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-help" });
    const wrong = h("p", { class: "error", role: "alert", hidden: !wasRefused }, "That token was rejected.");
    const check = (event) => {
      if (SENDABLE.test(input.value.trim())) return;
      event.preventDefault();
      wrong.textContent = "A token has only ASCII letters, digits and symbols, without spaces.";
      wrong.hidden = false;
      input.focus();
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "token-title", class: "narrow" },
      h(
        "form",
        { method: "dialog", onsubmit: check },
        h("h2", { id: "token-title" }, "Admin token"),
        wrong,
        h("div", { class: "field" }, h("label", { for: "token" }, "Token"), input),
        h(
          "p",
          { class: "muted", id: "token-help" },
          "Changing thresholds needs the admin token. `make token` prints it. This tab keeps it until you close it.",
        ),
        h(
          "div",
          { class: "actions" },
          h("button", { type: "button", class: "quiet", onclick: () => dialog.close("cancel") }, "Cancel"),
          h("button", { class: "primary", value: "ok" }, "Use token"),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      const isGiven = dialog.returnValue === "ok";
      if (isGiven) keep(input.value.trim());
      dialog.remove();
      resolve(isGiven);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function keep(token) {
  memory = token;
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // kept in memory only
  }
  for (const listener of listeners) listener(Boolean(token));
}
