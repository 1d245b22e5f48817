// The live stream of aggregates: reconnects with back-off, pauses while the page is hidden, and reports the age of the figures.

const QUIET_MS = 10_000; // five intervals of the server
const DEAD_MS = 30_000; // then a silent connection is closed
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;

/**
 * One stream at a time. Calls `onMessage(window, aggregate)`, and `onState` with
 * `{name: "connecting" | "live" | "asked" | "stale", since}`; `since` is when the current figures arrived, or null.
 */
export class Live {
  constructor(onMessage, onState) {
    Object.assign(this, { onMessage, onState, window: null, source: null, retry: null, retryMs: FIRST_RETRY_MS });
    Object.assign(this, { isConnected: false, wasLost: false, wasAsked: false, openedAt: 0, messageAt: null, shownAt: null, gapMs: 0 });
    setInterval(() => this.look(), 1000);
    document.addEventListener("visibilitychange", () => this.wake());
    addEventListener("online", () => this.wake());
  }

  /** Whether the stream delivers figures. */
  get isLive() {
    return this.isConnected && !this.isQuiet();
  }

  /** Follow another window. Its figures replace the old ones with the first message. */
  follow(window) {
    Object.assign(this, { window, retryMs: FIRST_RETRY_MS, messageAt: null, gapMs: 0 });
    this.wake();
  }

  /** Record figures that arrived by a request. */
  shown() {
    const { isLive } = this;
    this.shownAt = Date.now();
    this.wasAsked = true;
    if (!isLive && (this.wasLost || Date.now() - this.openedAt > QUIET_MS)) this.tell("asked");
  }

  /** A hidden page has no connection: browsers allow an origin only six over all tabs. */
  wake() {
    this.close();
    if (document.visibilityState === "visible" && this.window !== null) this.open();
  }

  open() {
    this.openedAt = Date.now();
    const source = new EventSource(`/metrics/stream?window=${encodeURIComponent(this.window)}`);
    source.addEventListener("aggregate", (event) => this.take(JSON.parse(event.data)));
    source.addEventListener("error", () => this.lost());
    this.source = source;
    this.look();
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.isConnected = false;
  }

  take(aggregate) {
    if (this.isConnected && this.messageAt !== null) this.gapMs = Date.now() - this.messageAt;
    this.messageAt = this.shownAt = Date.now();
    this.retryMs = FIRST_RETRY_MS;
    this.isConnected = true;
    this.wasLost = this.wasAsked = false;
    this.tell("live");
    this.onMessage(this.window, aggregate);
  }

  lost() {
    this.close();
    if (!this.wasLost) this.tell(this.shownAt === null ? "connecting" : this.wasAsked && !this.isQuiet() ? "asked" : "stale");
    this.wasLost = true;
    this.retry = setTimeout(() => this.open(), this.retryMs * (0.75 + Math.random() / 2));
    this.retryMs = Math.min(this.retryMs * 2, LONGEST_RETRY_MS);
  }

  /** Called every second: detects stale figures and dead connections. */
  look() {
    if (this.window === null || document.visibilityState !== "visible") return;
    if (this.shownAt === null) this.tell("connecting");
    else if (this.isQuiet()) this.tell("stale");
    if (this.source !== null && Date.now() - Math.max(this.openedAt, this.messageAt ?? 0) > Math.max(DEAD_MS, 10 * this.gapMs)) this.lost();
  }

  isQuiet() {
    return this.shownAt === null || Date.now() - this.shownAt > Math.max(QUIET_MS, 3 * this.gapMs);
  }

  tell(name) {
    this.onState({ name, since: this.shownAt });
  }
}
