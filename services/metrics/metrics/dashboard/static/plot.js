// One plot over time: canvas by uPlot, a legend that reads out values, and a table of the same values.

import { h, setText } from "./dom.js";
import { NONE, clock, dateTime, trimmed } from "./format.js";
import { colour, onTheme } from "./theme.js";
import { update } from "./update.js";

const HEIGHT = 220;
const ROWS = 60; // of the table
const FAMILY = "Inter, system-ui, sans-serif";
const DAY_S = 86_400;

/** `zoom(start, end)` is called with a range that was dragged over. `spec`: id, title, hint, format, series of {label, colour, dash, width}. The element is `figure`. */
export class Plot {
  constructor(spec, zoom) {
    Object.assign(this, { spec, zoom });
    this.data = [[], ...spec.series.map(() => [])];
    this.limits = [];
    this.spans = [];
    this.values = spec.series.map(() => h("span", { class: "legend-value" }, NONE));
    this.hint = h("span", { class: "muted" }, spec.hint);
    this.at = h("span", { class: "muted legend-at" });
    this.canvas = h("div", { class: "canvas", role: "img", "aria-label": `${spec.title}: loading` });
    this.empty = h("p", { class: "empty", hidden: true }, spec.empty);
    this.table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${spec.title} as a table` });
    this.details = h("details", { ontoggle: () => this.fillTable() }, h("summary", {}, "Show as table"), this.table);
    this.figure = h(
      "figure",
      { class: "panel plot", id: `plot-${spec.id}`, tabindex: "-1", "data-state": "loading", "aria-labelledby": `title-${spec.id}` },
      h("figcaption", {}, h("h3", { id: `title-${spec.id}` }, spec.title), this.hint),
      this.legend(),
      h("div", { class: "stage" }, this.canvas, this.at, this.empty),
      this.details,
    );
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    onTheme(() => this.chart?.redraw(false));
  }

  /** `limits` are [value, name] of firing rules; `spans` are [from, to] of firing alerts. */
  show(times, columns, { limits = [], spans = [] } = {}) {
    this.data = [times, ...columns];
    this.limits = limits;
    this.spans = spans;
    const isEmpty = columns.every((column) => column.every((value) => value === null || value === 0));
    this.figure.dataset.state = isEmpty ? "empty" : "ready";
    this.empty.hidden = !isEmpty;
    if (this.chart) this.chart.setData(this.data);
    else this.create();
    this.readOut();
    this.describe(isEmpty);
    this.fillTable();
  }

  /** Highlight the plot, and one of its lines if its label is given. */
  highlight(label) {
    const place = this.spec.series.findIndex((one) => one.label === label);
    if (place >= 0) this.chart?.setSeries(place + 1, { focus: true });
    this.figure.classList.add("highlight");
    clearTimeout(this.fading);
    this.fading = setTimeout(() => {
      this.figure.classList.remove("highlight");
      this.chart?.setSeries(null, { focus: false });
    }, 4000);
  }

  legend() {
    const line = (one, i) =>
      h("li", {}, h("span", { class: "swatch", "aria-hidden": "true", "data-dash": one.dash && (one.dash[0] > 4 ? "long" : "short"), vars: { "--series": `var(${one.colour})` } }), one.label, this.values[i]);
    return h("ul", { class: "legend" }, this.spec.series.map(line));
  }

  create() {
    const width = this.canvas.clientWidth;
    if (!width) return; // the observer calls again once it has a width
    const axis = { stroke: () => colour("--muted"), font: `12px ${FAMILY}`, ticks: { show: false } };
    const grid = { stroke: () => colour("--line"), width: 1 };
    this.chart = new uPlot(
      {
        width,
        height: HEIGHT,
        padding: [12, 20, 0, 0],
        legend: { show: false },
        focus: { alpha: 0.2 },
        cursor: { y: false, drag: { x: true, y: false, setScale: false }, sync: { key: "time", filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } }, points: { size: 7 } },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [
          { ...axis, grid: { show: false }, space: 64, size: 28, values: (_, ticks) => ticks.map((tick) => this.tick(tick)) },
          { ...axis, grid, size: 64, space: 44, values: (_, ticks) => ticks.map((tick) => trimmed(this.spec.format(tick))) },
        ],
        series: [
          {},
          ...this.spec.series.map((one) => ({
            label: one.label,
            stroke: () => colour(one.colour),
            width: one.width ?? 2,
            dash: one.dash,
            points: { size: 6, fill: () => colour(one.colour), filter: (chart, place, isShown) => (isShown ? null : isolated(chart.data[place])) },
          })),
        ],
        hooks: { drawClear: [(chart) => this.drawSpans(chart)], draw: [(chart) => this.drawLimits(chart)], setCursor: [() => this.readOut()], setSelect: [(chart) => this.selected(chart)] },
      },
      this.data,
      this.canvas,
    );
  }

  /** Zoom into what was dragged over. */
  selected(chart) {
    const { left, width } = chart.select;
    if (width < 8) return;
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    const time = (x) => new Date(chart.posToVal(x, "x") * 1000).toISOString();
    this.zoom?.(time(left), time(left + width));
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (!this.chart) this.create();
    else if (width && width !== this.chart.width) this.chart.setSize({ width, height: HEIGHT });
  }

  tick(seconds) {
    const [times] = this.data;
    const isLong = times.at(-1) - times[0] > 2 * DAY_S;
    const time = new Date(seconds * 1000);
    return isLong
      ? time.toLocaleDateString("en-GB", { day: "numeric", month: "short" })
      : time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  }

  readOut() {
    const under = this.chart?.cursor.idx ?? null;
    const [times, ...columns] = this.data;
    const place = under ?? times.length - 1;
    columns.forEach((column, i) => setText(this.values[i], this.spec.format(under === null ? latest(column) : column[place])));
    setText(this.at, under === null || times[place] === undefined ? "" : clock(times[place] * 1000));
  }

  describe(isEmpty) {
    const line = (one, i) => `${one.label} ${this.spec.format(latest(this.data[i + 1]))}`;
    const text = isEmpty ? this.spec.empty : `latest ${this.spec.series.map(line).join(", ")}. The table below has every value.`;
    this.canvas.setAttribute("aria-label", `${this.spec.title}: ${text}`);
  }

  fillTable() {
    if (!this.details.open) return;
    const [times, ...columns] = this.data;
    const first = Math.max(0, times.length - ROWS);
    const row = (time, i) =>
      h("tr", { key: time }, h("th", { scope: "row" }, dateTime(time * 1000)), columns.map((column) => h("td", {}, this.spec.format(column[first + i]))));
    const head = h("tr", {}, h("th", { scope: "col" }, "Time"), this.spec.series.map((one) => h("th", { scope: "col" }, one.label)));
    const rows = times.slice(first).map(row).reverse();
    const note = first > 0 ? `${this.spec.title}: the latest ${ROWS} of ${times.length}` : this.spec.title;
    update(this.table, h("table", {}, h("caption", {}, note), h("thead", {}, head), h("tbody", {}, rows)));
  }

  drawSpans({ ctx, bbox, valToPos }) {
    ctx.save();
    ctx.fillStyle = colour("--span");
    for (const [from, to] of this.spans) {
      const left = Math.max(bbox.left, valToPos(from, "x", true));
      const right = Math.min(bbox.left + bbox.width, valToPos(to, "x", true));
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
    ctx.restore();
  }

  drawLimits({ ctx, bbox, scales, valToPos }) {
    ctx.save();
    ctx.strokeStyle = colour("--bad");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.fillStyle = colour("--bad");
    ctx.font = `${11 * devicePixelRatio}px ${FAMILY}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom"; // undefined after drawing the axes
    const end = bbox.left + bbox.width;
    let last = { y: Infinity, left: end };
    for (const [limit, name] of this.limits.filter(([value]) => value <= scales.y.max).sort(([a], [b]) => a - b)) {
      const y = Math.round(valToPos(limit, "y", true)) + 0.5;
      const right = last.y - y < 14 * devicePixelRatio ? last.left - 8 * devicePixelRatio : end; // avoids a label just below
      last = { y, left: right - ctx.measureText(name).width };
      const label = [name, right, y - 2 * devicePixelRatio];
      ctx.save();
      ctx.strokeStyle = colour("--surface");
      ctx.lineWidth = 4 * devicePixelRatio;
      ctx.setLineDash([]);
      ctx.strokeText(...label);
      ctx.restore();
      ctx.fillText(...label);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(end, y);
      ctx.stroke();
    }
    ctx.restore();
  }
}

/** Places of values without a neighbour: no line reaches them, so each gets a marker. */
function isolated(column) {
  const isNone = (i) => (column[i] ?? null) === null;
  return [...column.keys()].filter((i) => !isNone(i) && isNone(i - 1) && isNone(i + 1));
}

function latest(column) {
  for (let i = column.length - 1; i >= 0; i--) if (column[i] !== null && column[i] !== undefined) return column[i];
  return null;
}
