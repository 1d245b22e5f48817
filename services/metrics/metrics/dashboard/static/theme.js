// Light, dark or the system's choice, and the current colours for canvases.

const NAMES = ["system", "light", "dark"];
const KEY = "sluice-theme";
const listeners = new Set();
const colours = new Map();

/** Let the button cycle through the three. */
export function startTheme(button) {
  let name = document.documentElement.dataset.theme ?? "system";
  const show = () => {
    button.textContent = { system: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[name];
  };
  button.addEventListener("click", () => {
    name = NAMES[(NAMES.indexOf(name) + 1) % NAMES.length];
    wear(name);
    try {
      localStorage.setItem(KEY, name);
    } catch {
      // it lasts as long as the page
    }
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  addEventListener("beforeprint", () => wear("light")); // paper is
  addEventListener("afterprint", () => wear(name));
  show();
}

/** Call `listener` when colours may have changed. */
export function onTheme(listener) {
  listeners.add(listener);
}

/** The current value of a custom property. */
export function colour(name) {
  if (!colours.has(name)) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

function wear(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  changed();
}

function changed() {
  colours.clear();
  for (const listener of listeners) listener();
}
