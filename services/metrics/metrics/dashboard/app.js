// Puts the page together: one window, one stream, and what else is asked now and then.

import { Alerts, verdictOf } from "./alerts.js";
import { Trouble, ask } from "./api.js";
import { byId, h, notice, setText } from "./dom.js";
import { WINDOWS, clock, count, duration } from "./format.js";
import { follow } from "./live.js";
import { Plots } from "./plots.js";
import { Predict } from "./predict.js";
import { ReportPanel } from "./report.js";
import { ModelPanel, SystemPanel } from "./system.js";
import { startTheme } from "./theme.js";
import { Thresholds } from "./thresholds.js";
import { Tiles } from "./tiles.js";

const ALERTS_MS = 5_000;
const HEALTH_MS = 10_000;
const DRIFT_MS = 15_000;
const MODEL_MS = 60_000;
const LAGGING_S = 5;

const state = { window: "1h", aggregate: null, alerts: [], unfollow: () => {} };

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
  metricOf: (name) => state.aggregate?.thresholds.find(({ rule }) => rule.name === name)?.rule.metric,
});

startWindows(byId("windows"));
state.window = fromAddress();
every(ALERTS_MS, loadAlerts);
every(HEALTH_MS, loadHealth);
every(MODEL_MS, loadModel);
const refreshDrift = every(DRIFT_MS, loadDrift);
choose(state.window);

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

/** Look at another window: what is shown stays until the first answer. */
function choose(name) {
  state.window = name;
  byId("windows").querySelector(`[value="${name}"]`).checked = true;
  const address = new URL(location);
  address.searchParams.set("window", name);
  history.replaceState(null, "", address);
  document.body.dataset.loading = "";
  state.unfollow();
  state.unfollow = follow(name, showAggregate, showLive);
  loadAggregate();
  refreshDrift();
}

function loadAggregate() {
  const asked = state.window;
  const isWanted = () => asked === state.window;
  return attempt(
    async () => {
      const { body } = await ask("POST", "/metrics/aggregated", { body: { window: asked } });
      if (isWanted()) showAggregate(body);
    },
    (trouble) => isWanted() && state.aggregate === null && showTrouble(trouble),
  );
}

function showAggregate(aggregate) {
  state.aggregate = aggregate;
  delete document.body.dataset.loading;
  byId("trouble").hidden = true;
  tiles.show(aggregate);
  plots.show(aggregate, state.alerts);
  thresholds.show(aggregate.thresholds);
  showVerdict();
  const lag = aggregate.lag_s;
  setText(byId("lag"), lag === null ? "Ingestion cannot be asked" : lag > LAGGING_S ? `Ingestion is ${duration(lag)} behind` : "Ingestion is up to date");
}

function showVerdict() {
  if (!state.aggregate) return;
  const { state: kind, text } = verdictOf(state.aggregate, state.alerts);
  const { requests, predictions } = state.aggregate;
  setText(byId("verdict"), text);
  byId("verdict").dataset.state = kind;
  setText(byId("scope"), `${count(requests)} requests and ${count(predictions)} answered predictions in the last ${WINDOWS[state.window]}`);
  document.title = kind === "critical" || kind === "warning" ? `● ${text} – Sluice` : "Sluice";
}

function showTrouble(trouble) {
  byId("trouble").replaceChildren(notice("bad", "No figures yet", `${trouble.detail ?? trouble.title} The page keeps trying.`));
  byId("trouble").hidden = false;
  setText(byId("verdict"), "Not known");
  setText(byId("scope"), "The metrics cannot be read.");
}

function showLive({ name, since }) {
  const place = byId("live");
  place.dataset.state = name;
  document.body.toggleAttribute("data-stale", name === "stale");
  setText(place, { live: "Live", connecting: "Connecting…", stale: `Stale since ${since ? clock(since) : ""}` }[name]);
}

function loadAlerts() {
  return attempt(
    async () => {
      const { body } = await ask("GET", "/metrics/alerts");
      state.alerts = body.alerts;
      alerts.show(body);
      showVerdict();
    },
    (trouble) => alerts.showTrouble(trouble),
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

/** What goes wrong on the way is shown; what is wrong with this page is not hidden. */
async function attempt(work, onTrouble) {
  try {
    await work();
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    onTrouble(trouble);
  }
}

/** Run now, and again after each interval while the page is looked at; the returned function runs it at once. */
function every(intervalMs, run) {
  let timer = null;
  let turn = 0;
  const again = async () => {
    const mine = ++turn;
    clearTimeout(timer);
    if (document.visibilityState === "visible") await run();
    if (mine === turn) timer = setTimeout(again, intervalMs);
  };
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && again());
  again();
  return again;
}
