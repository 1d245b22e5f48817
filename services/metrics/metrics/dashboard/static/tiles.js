// The key figures, compared with the previous window, and whether a rule of theirs is breached.

import { h, setText } from "./dom.js";
import { NONE, limitValue, metricValue, ms, percent, rate, score, shortCount } from "./format.js";

const ENOUGH = 30; // fewer requests on either side are not compared
const STEADY = 0.005; // smaller relative changes are shown as none
const NOTABLE = 0.1; // smaller changes are not coloured

const TILES = [
  { id: "throughput_per_s", label: "Throughput", unit: "/s", format: rate, read: (s) => s.throughput_per_s, better: 0 },
  { id: "predictions", label: "Predictions", format: shortCount, read: (s) => s.predictions, better: 0 },
  { id: "latency_ms.p50", label: "p50 latency", format: ms, read: (s) => s.latency_ms.p50, better: -1 },
  { id: "latency_ms.p95", label: "p95 latency", format: ms, read: (s) => s.latency_ms.p95, better: -1 },
  { id: "latency_ms.p99", label: "p99 latency", format: ms, read: (s) => s.latency_ms.p99, better: -1 },
  { id: "error_rate", label: "Error rate", format: percent, read: (s) => s.error_rate, better: -1 },
  { id: "limited_rate", label: "Limited rate", format: percent, read: (s) => s.limited_rate, better: -1 },
  { id: "confidence.mean", label: "Confidence", format: score, read: (s) => s.confidence.mean, better: 1 },
];

export class Tiles {
  constructor(place) {
    this.parts = TILES.map(() => ({ value: h("span", { class: "tile-value" }, NONE), note: h("span", { class: "tile-note" }, " ") }));
    this.tiles = TILES.map((tile, i) =>
      h(
        "div",
        { class: "tile", "data-tile": tile.id, "data-state": "loading" },
        h("dt", {}, tile.label),
        h("dd", {}, this.parts[i].value, tile.unit ? h("span", { class: "tile-unit" }, ` ${tile.unit}`) : null, this.parts[i].note),
      ),
    );
    place.append(...this.tiles);
  }

  show(aggregate) {
    TILES.forEach((tile, i) => {
      const breach = aggregate.thresholds.find((state) => state.rule.metric === tile.id && state.breached);
      const now = tile.read(aggregate);
      const isFew = Math.min(aggregate.requests, aggregate.previous.requests) < ENOUGH;
      const change = isFew ? { text: " ", kind: "none" } : changeOf(now, tile.read(aggregate.previous), tile.better);
      const { value, note } = this.parts[i];
      setText(value, tile.format(now));
      setText(note, breach ? breachText(breach) : change.text);
      this.tiles[i].dataset.state = breach ? "breached" : now === null ? "empty" : "ready";
      note.dataset.kind = breach ? "bad" : change.kind;
    });
  }
}

function breachText({ rule, current }) {
  const limit = rule.above ?? rule.below;
  return `${metricValue(rule.metric, current)} over ${rule.window}, limit ${limitValue(rule.metric, limit)}`;
}

function changeOf(now, before, better) {
  if (now === null || before === null) return { text: " ", kind: "none" };
  if (now === before) return { text: "unchanged", kind: "none" };
  if (before === 0) return { text: "up from 0", kind: better < 0 ? "worse" : "none" };
  const change = now / before - 1;
  if (Math.abs(change) < STEADY) return { text: "unchanged", kind: "none" };
  const kind = better === 0 || Math.abs(change) < NOTABLE ? "none" : change * better > 0 ? "better" : "worse";
  const size = change > 9.99 ? `${rate(now / before)}×` : `${Math.abs(change * 100).toFixed(Math.abs(change) < 0.1 ? 1 : 0)} %`;
  return { text: `${change > 0 ? "▲" : "▼"} ${size} vs before`, kind };
}
