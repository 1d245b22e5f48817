// The live stream of aggregates: reconnects with back-off, and says since when nothing has come.

const QUIET_MS = 10_000; // five intervals of the server's
const DEAD_MS = 30_000; // a silent connection is given up
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;

/**
 * Follow `window` until the returned function is called. `onMessage` gets each aggregate; `onState` gets
 * `{name: "connecting" | "live" | "stale", since}`, `since` being the time of the last message, or null.
 */
export function follow(window, onMessage, onState) {
  let source = null;
  let retry = null;
  let retryMs = FIRST_RETRY_MS;
  let openedAt = 0;
  let lastAt = null;
  let gapMs = 0;
  let isConnected = false;

  const open = () => {
    clearTimeout(retry);
    source?.close();
    openedAt = Date.now();
    source = new EventSource(`/metrics/stream?window=${encodeURIComponent(window)}`);
    source.addEventListener("aggregate", (event) => {
      gapMs = lastAt === null || !isConnected ? gapMs : Date.now() - lastAt;
      lastAt = Date.now();
      retryMs = FIRST_RETRY_MS;
      isConnected = true;
      onState({ name: "live", since: lastAt });
      onMessage(JSON.parse(event.data));
    });
    source.addEventListener("error", lost);
  };
  const lost = () => {
    source.close();
    isConnected = false;
    tell();
    retry = setTimeout(open, retryMs * (0.75 + Math.random() / 2));
    retryMs = Math.min(retryMs * 2, LONGEST_RETRY_MS);
  };
  const tell = () => {
    const isQuiet = Date.now() - lastAt > Math.max(QUIET_MS, 3 * gapMs);
    if (lastAt === null) onState({ name: "connecting", since: null });
    else if (!isConnected || isQuiet) onState({ name: "stale", since: lastAt });
  };
  const watch = setInterval(() => {
    tell();
    if (isConnected && Date.now() - Math.max(openedAt, lastAt ?? 0) > Math.max(DEAD_MS, 10 * gapMs)) lost();
  }, 1000);
  const hurry = () => {
    if (!isConnected && document.visibilityState === "visible") open();
  };
  document.addEventListener("visibilitychange", hurry);
  addEventListener("online", hurry);
  open();
  return () => {
    source.close();
    clearTimeout(retry);
    clearInterval(watch);
    document.removeEventListener("visibilitychange", hurry);
    removeEventListener("online", hurry);
  };
}
