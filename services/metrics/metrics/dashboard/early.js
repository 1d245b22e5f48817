// What cannot wait for the modules: the chosen theme, before anything is painted, and what to do where one is missing.
(() => {
  try {
    const theme = localStorage.getItem("sluice-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is forbidden: the system's preference stands
  }
})();

// While replicas of two versions run, each has only its own files. Those that came are kept: soon all are of one version.
addEventListener("error", ({ target }) => target !== window && setTimeout(() => location.reload(), 2_000), true);
