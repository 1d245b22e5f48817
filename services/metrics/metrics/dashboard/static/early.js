// Runs before the modules: sets the theme before the first paint, and reloads the page if a file is missing.
(() => {
  try {
    const theme = localStorage.getItem("sluice-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is blocked: the system's preference applies
  }
})();

// While replicas of two versions run, each serves only its own files. Loaded files are cached: of 100 pages that reload,
// 99 have one complete version within 13 reloads. After 20 the cause is something else.
(() => {
  const TRIES = 20;
  const KEY = "sluice-tries";
  const own = new URL(".", document.currentScript.src).href;
  const missing = new Set();
  let planned = null;

  function failed({ target }) {
    const url = target instanceof HTMLElement ? (target.src ?? target.href ?? "") : "";
    if (!url.startsWith(own)) return; // inserted by others
    missing.add(url.slice(own.length));
    if (target.matches("script, [rel=stylesheet]")) planned ??= setTimeout(again, 2_000); // other elements retry by themselves
  }

  function again() {
    const tries = counted((before) => (before + 1) % TRIES);
    if (tries) location.reload();
    else showMissing();
  }

  /** Return the number of reloads, or 0 where storage is blocked. */
  function counted(next) {
    try {
      const tries = next(Number(sessionStorage.getItem(KEY)));
      if (tries) sessionStorage.setItem(KEY, tries);
      else sessionStorage.removeItem(KEY);
      return tries;
    } catch {
      return 0;
    }
  }

  function showMissing() {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.dataset.kind = "bad";
    notice.setAttribute("role", "alert");
    notice.textContent = `Parts of this page cannot be loaded: ${[...missing].join(", ")}. A browser extension may block them, or an upgrade is still running.`;
    document.body.prepend(notice);
  }

  addEventListener("error", failed, true);
  addEventListener("load", () => planned === null && counted(() => 0));
})();
