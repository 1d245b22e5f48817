// Builds the page: one time window, one event stream, and periodic requests for the rest.

import { Alerts, verdictOf } from "./alerts.js";
import { Trouble, ask } from "./api.js";
import { byId, h, notice, setText } from "./dom.js";
import { WINDOWS, clock, count, duration, zone } from "./format.js";
import { Live } from "./live.js";
import { Plots } from "./plots.js";
import { Predict } from "./predict.js";
import { ReportPanel } from "./report.js";
import { ModelPanel, SystemPanel } from "./system.js";
import { startTheme } from "./theme.js";
import { Thresholds } from "./thresholds.js";
import { Tiles } from "./tiles.js";
import { update } from "./update.js";

const ALERTS_MS = 5_000;
const KNOWN_MS = 4 * ALERTS_MS; // older alerts count as unknown
const ASK_MS = 5_000; // between requests for figures while the stream is silent
const TITLE_MS = 60_000; // for alerts while the page is hidden: its title names firing ones
const HEALTH_MS = 10_000;
const DRIFT_MS = 15_000;
const MODEL_MS = 60_000;
const LAGGING_S = 5;

// `shown` is {window, aggregate} and `alerts` is {alerts, isKnown, at}: the latest received.
const state = { window: "1h", shown: null, alerts: null };

startTheme(byId("theme"));
const tiles = new Tiles(byId("tiles"));
const plots = new Plots(byId("plots"));
const toPlot = (metric) => plots.follow(metric);
const alerts = new Alerts(byId("alerts"), toPlot);
const thresholds = new Thresholds(byId("thresholds"), () => loadAggregate());
const model = new ModelPanel(byId("model"));
const system = new SystemPanel(byId("system"));
new Predict(byId("try"));
new ReportPanel(byId("report"), {
  window: () => state.window,
  follow: toPlot,
  metricOf: (name) => state.shown?.aggregate.thresholds.find(({ rule }) => rule.name === name)?.rule.metric,
});

const live = new Live(showAggregate, showLive);
const refreshDrift = every(DRIFT_MS, loadDrift);
const refreshAggregate = every(ASK_MS, () => (live.isLive ? null : loadAggregate()));
startWindows(byId("windows"));
choose(fromAddress());
addEventListener("popstate", () => fromAddress() !== state.window && choose(fromAddress())); // each history entry has its window
for (const start of [every(ALERTS_MS, loadAlerts, TITLE_MS), every(HEALTH_MS, loadHealth), every(MODEL_MS, loadModel)]) start();

function startWindows(place) {
  const option = (name) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name: "window", value: name, onchange: () => choose(name) }),
      h("span", {}, name),
    );
  place.append(h("div", { class: "segments" }, Object.keys(WINDOWS).map(option)));
}

function fromAddress() {
  const name = new URLSearchParams(location.search).get("window");
  return Object.hasOwn(WINDOWS, name ?? "") ? name : state.window;
}

/** Switch to another window. The old figures stay, labelled, until the first response. */
function choose(name) {
  state.window = name;
  byId("windows").querySelector(`[value="${name}"]`).checked = true;
  const address = new URL(location);
  address.searchParams.set("window", name);
  history.replaceState(null, "", address);
  document.body.dataset.loading = "";
  if (!state.shown) setText(byId("scope"), `Loading the last ${WINDOWS[name]}.`);
  live.follow(name);
  refreshAggregate();
  refreshDrift();
}

function loadAggregate() {
  const asked = state.window;
  return attempt(
    async () => {
      const { body } = await ask("POST", "/metrics/aggregated", { body: { window: asked } });
      if (asked !== state.window) return;
      live.shown();
      showAggregate(asked, body);
    },
    (trouble) => asked === state.window && asked !== state.shown?.window && showTrouble(trouble),
  );
}

function showAggregate(window, aggregate) {
  state.shown = { window, aggregate };
  delete document.body.dataset.loading;
  byId("trouble").hidden = true;
  tiles.show(aggregate);
  plots.show(aggregate, state.alerts?.alerts ?? []);
  thresholds.show(aggregate.thresholds);
  showVerdict();
  const lag = aggregate.lag_s;
  setText(byId("zone"), `Times are in ${zone()}`);
  setText(byId("lag"), lag === null ? "Ingestion lag is unknown" : lag > LAGGING_S ? `Ingestion is ${duration(lag)} behind` : "Ingestion is up to date");
}

function showVerdict() {
  if (!state.shown) return;
  const { window, aggregate } = state.shown;
  const { state: kind, text } = verdictOf(aggregate, knownAlerts(), "stale" in document.body.dataset);
  setText(byId("verdict"), text);
  byId("verdict").dataset.state = kind;
  setText(byId("scope"), `${counted(aggregate.requests, "request")} and ${counted(aggregate.predictions, "answered prediction")} in the last ${WINDOWS[window]}`);
  document.title = kind === "critical" || kind === "warning" ? `● ${text} – Sluice` : "Sluice";
}

const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** The current alerts: empty during the first request, null while they are unknown. */
function knownAlerts() {
  if (state.alerts === null) return { alerts: [], isPending: true };
  return state.alerts.isKnown && Date.now() - state.alerts.at < KNOWN_MS ? { alerts: state.alerts.alerts } : null;
}

function showTrouble(trouble) {
  const shown = state.shown ? ` The figures below are of the last ${WINDOWS[state.shown.window]}.` : "";
  const title = state.shown ? `No figures for the last ${WINDOWS[state.window]} yet` : "No figures yet";
  update(byId("trouble"), notice("bad", title, `${trouble.detail ?? trouble.title} The page keeps trying.${shown}`));
  byId("trouble").hidden = false;
  if (state.shown) return;
  setText(byId("verdict"), "Can't reach Sluice");
  setText(byId("scope"), "The metrics cannot be read.");
}

function showLive({ name, since }) {
  const place = byId("live");
  place.dataset.state = name;
  document.body.toggleAttribute("data-stale", name === "stale");
  const [label, time] = place.children; // the time changes often, so screen readers don't announce it
  setText(label, { live: "Live", connecting: "Connecting…", asked: "As of", stale: "Stale since" }[name]);
  setText(time, name === "asked" || name === "stale" ? ` ${clock(since)}` : "");
  showVerdict();
}

function loadAlerts() {
  return attempt(
    async () => {
      const { body } = await ask("GET", "/metrics/alerts");
      state.alerts = { alerts: body.alerts, isKnown: !body.overdue, at: Date.now() };
      alerts.show(body);
      showVerdict();
    },
    (trouble) => {
      state.alerts = { alerts: [], ...state.alerts, isKnown: false, at: Date.now() };
      alerts.showTrouble(trouble);
      showVerdict();
    },
  );
}

function loadHealth() {
  return attempt(
    async () => system.show((await ask("GET", "/health", { accept: [503] })).body),
    (trouble) => system.showTrouble(trouble),
  );
}

function loadDrift() {
  const asked = state.window;
  return attempt(
    async () => {
      const { body } = await ask("GET", `/metrics/drift?window=${asked}`);
      if (asked === state.window) plots.showDrift(body, null);
    },
    (trouble) => plots.showDrift(null, trouble),
  );
}

function loadModel() {
  return attempt(
    async () => model.show((await ask("GET", "/models")).body),
    (trouble) => model.showTrouble(trouble),
  );
}

/** Show a failed request; errors of this page itself propagate. */
async function attempt(work, onTrouble) {
  try {
    await work();
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    onTrouble(trouble);
  }
}

/** Return a function that runs `run` now and then repeats it, with another interval while the page is hidden. */
function every(intervalMs, run, hiddenMs = null) {
  let timer = null;
  let turn = 0;
  const again = async () => {
    const mine = ++turn;
    clearTimeout(timer);
    const isSeen = () => document.visibilityState === "visible";
    if (isSeen() || hiddenMs !== null) await run();
    if (mine === turn) timer = setTimeout(again, isSeen() ? intervalMs : (hiddenMs ?? intervalMs));
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && again());
  return again;
}
