// What cannot wait for the modules: the chosen theme, before anything is painted, and what to do where a file is missing.
(() => {
  try {
    const theme = localStorage.getItem("sluice-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is forbidden: the system's preference stands
  }
})();

// While replicas of two versions run, each has only its own files. Those that came are kept: of 100 pages that load
// themselves again, 99 have all of one version within 13 times. What is missing after 20, something else keeps away.
(() => {
  const TRIES = 20;
  const KEY = "sluice-tries";
  const own = new URL(".", document.currentScript.src).href;
  const missing = new Set();
  let planned = null;

  function failed({ target }) {
    const url = target instanceof HTMLElement ? (target.src ?? target.href ?? "") : "";
    if (!url.startsWith(own)) return; // what others put into the page
    missing.add(url.slice(own.length));
    if (target.matches("script, [rel=stylesheet]")) planned ??= setTimeout(again, 2_000); // others are asked for once more
  }

  function again() {
    const tries = counted((before) => (before + 1) % TRIES);
    if (tries) location.reload();
    else tell();
  }

  /** Where storage is forbidden nobody could count. */
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

  function tell() {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.dataset.kind = "bad";
    notice.setAttribute("role", "alert");
    notice.textContent = `Parts of this page cannot be loaded: ${[...missing].join(", ")}. An extension of the browser may keep them away, or an upgrade is not over yet.`;
    document.body.prepend(notice);
  }

  addEventListener("error", failed, true);
  addEventListener("load", () => planned === null && counted(() => 0));
})();
