// Builds the page: one time window, one event stream, and periodic requests for the rest.

import { Alerts, verdictOf } from "./alerts.js";
import { ask, attempt } from "./api.js";
import { byId, h, notice, renderOnce, setText } from "./dom.js";
import { WINDOWS, clock, count, duration, zone } from "./format.js";
import { Live } from "./live.js";
import { Plots } from "./plots.js";
import { Explore } from "./explore.js";
import { Predict } from "./predict.js";
import { fromAddress, isSame, nameOf, toAddress } from "./range.js";
import { ReportPanel } from "./report.js";
import { ModelPanel, SystemPanel } from "./system.js";
import { startTheme } from "./theme.js";
import { RuleEditor } from "./thresholds.js";
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

// `shown` is {range, aggregate} and `alerts` is {alerts, isKnown, at}: the latest received. `failure` is {text, since}.
const state = { range: { window: "1h" }, shown: null, alerts: null, failure: null, wasWell: false };

startTheme(byId("theme"));
const tiles = new Tiles(byId("tiles"));
const explore = new Explore(byId("predictions"), () => state.range);
const plots = new Plots(byId("plots"), (start, end) => choose({ start, end }, true), (filter) => explore.filter(filter));
const toPlot = (metric) => plots.follow(metric);
const alerts = new Alerts(byId("alerts"), toPlot, new RuleEditor(() => loadAggregate()));
const model = new ModelPanel(byId("model"));
const system = new SystemPanel(byId("system"));
new Predict(byId("try"));
new ReportPanel(byId("report"), {
  range: () => state.range,
  follow: toPlot,
  metricOf: (name) => state.shown?.aggregate.thresholds.find(({ rule }) => rule.name === name)?.rule.metric,
});

const live = new Live((window, aggregate) => showAggregate({ window }, aggregate), showLive);
const refreshDrift = every(DRIFT_MS, loadDrift);
const refreshAggregate = every(ASK_MS, () => (live.isLive ? null : loadAggregate()));
startWindows(byId("windows"));
choose(fromAddress(state.range));
addEventListener("popstate", () => isSame(fromAddress(state.range), state.range) || choose(fromAddress(state.range))); // each history entry has its range
for (const start of [every(ALERTS_MS, loadAlerts, TITLE_MS), every(HEALTH_MS, loadHealth), every(MODEL_MS, loadModel)]) start();

function startWindows(place) {
  const option = (name) =>
    h(
      "label",
      {},
      h("input", { type: "radio", name: "window", value: name, onchange: () => choose({ window: name }) }),
      h("span", {}, name),
    );
  const fix = () => state.shown && choose(state.shown.aggregate.range, true);
  const button = h("button", { type: "button", class: "quiet", title: "Keep this range in the address. Drag over a plot to zoom.", onclick: fix }, "Fix range");
  place.append(h("div", { class: "segments" }, Object.keys(WINDOWS).map(option)), button);
}

/** Switch to another range. The old figures stay, labelled, until the first response. */
function choose(range, isNew = false) {
  state.range = range;
  for (const input of byId("windows").querySelectorAll("input")) input.checked = input.value === range.window;
  toAddress(range, isNew);
  document.body.dataset.loading = "";
  if (!state.shown) setText(byId("scope"), `Loading ${nameOf(range)}.`);
  live.follow(range.window ?? null);
  refreshAggregate();
  refreshDrift();
}

function loadAggregate() {
  const asked = state.range;
  return attempt(
    async () => {
      const { body } = await ask("POST", "/metrics/aggregated", { body: asked });
      if (asked !== state.range) return;
      live.shown();
      showAggregate(asked, body);
    },
    (trouble) => asked === state.range && !isSame(asked, state.shown?.range ?? null) && showTrouble(trouble),
  );
}

function showAggregate(range, aggregate) {
  state.shown = { range, aggregate };
  delete document.body.dataset.loading;
  byId("trouble").hidden = true;
  tiles.show(aggregate);
  plots.show(aggregate, state.alerts?.alerts ?? []);
  alerts.showRules(aggregate.thresholds);
  explore.show(aggregate);
  showVerdict();
  showFirst(aggregate);
  const lag = aggregate.lag_s;
  setText(byId("zone"), `Times are in ${zone()}`);
  setText(byId("lag"), lag === null ? "Ingestion lag is unknown" : lag > LAGGING_S ? `Ingestion is ${duration(lag)} behind` : "Ingestion is up to date");
}

/** Explain how to begin, until a prediction was ever answered. */
async function showFirst({ predictions }) {
  if (predictions || state.isUsed) {
    state.isUsed = true;
    byId("first").hidden = true;
  } else {
    await attempt(
      async () => {
        state.isUsed = (await ask("GET", "/metrics/count")).body.count > 0;
        const curl = `curl ${location.origin}/predict -H 'Content-Type: application/json' -d '{"text": "A thoughtful, moving film."}'`;
        if (!state.isUsed) renderOnce(byId("first"), curl, () => [h("h2", {}, "Send your first prediction"), h("p", {}, "Use the ", h("a", { href: "#try" }, "form below"), ", or this command:"), h("code", {}, curl)]);
        byId("first").hidden = state.isUsed;
      },
      () => null,
    );
  }
}

function showVerdict() {
  if (!state.shown) return;
  const { range, aggregate } = state.shown;
  const { state: kind, text, href } = verdictOf(aggregate, knownAlerts(), "stale" in document.body.dataset, state.failure);
  headline(text, href);
  byId("verdict").dataset.state = kind;
  setText(byId("scope"), `${counted(aggregate.requests, "request")} and ${counted(aggregate.predictions, "answered prediction")} in ${nameOf(range)}`);
  document.title = kind === "critical" || kind === "warning" ? `● ${text} – Sluice` : "Sluice";
}

const headline = (text, href = null) => renderOnce(byId("verdict"), [text, href], () => h("a", { href }, text));

const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** The current alerts: empty during the first request, null while they are unknown. */
function knownAlerts() {
  if (state.alerts === null) return { alerts: [], isPending: true };
  return state.alerts.isKnown && Date.now() - state.alerts.at < KNOWN_MS ? { alerts: state.alerts.alerts } : null;
}

function showTrouble(trouble) {
  const shown = state.shown ? ` The figures below are of ${nameOf(state.shown.range)}.` : "";
  const title = state.shown ? `No figures for ${nameOf(state.range)} yet` : "No figures yet";
  update(byId("trouble"), notice("bad", title, `${trouble.detail ?? trouble.title} The page keeps trying.${shown}`));
  byId("trouble").hidden = false;
  if (state.shown) return;
  headline("Can't reach Sluice");
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
    async () => {
      const { body } = await ask("GET", "/health", { accept: [503] });
      system.show(body);
      const text = body.upstreams.inference?.status === "down" ? "inference is down" : "the rate limiter refuses requests";
      if (body.status !== "failed") state.wasWell = true;
      const since = state.failure ? state.failure.since : state.wasWell ? Date.now() : null;
      state.failure = body.status === "failed" ? { text, since } : null;
      showVerdict();
    },
    (trouble) => system.showTrouble(trouble),
  );
}

function loadDrift() {
  const asked = state.range;
  return attempt(
    async () => {
      const { body } = await ask("GET", `/metrics/drift?${new URLSearchParams(asked)}`);
      if (asked === state.range) plots.showDrift(body, null);
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
