// Formats numbers, times and names. A missing number is a dash.

export const NONE = "–";

const known = (format) => (value) => (value === null || value === undefined || Number.isNaN(value) ? NONE : format(value));
const digits = (value, places) =>
  value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
const fine = (value) => value.toLocaleString("en", { maximumSignificantDigits: 2 });
/** Three significant digits, without decimals from 100 on. */
const usual = (value) => value === 0 ? "0" : digits(value, Math.abs(value) < 9.995 ? 2 : Math.abs(value) < 99.95 ? 1 : 0);
const isBelow = (value, least) => value !== 0 && Math.abs(value) < least; // would be shown as zero

export const count = known((value) => value.toLocaleString("en"));
/** At most six digits: 12,345,678 is 12.35M. */
export const shortCount = known((value) => (value < 1_000_000 ? count(value) : value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 4 })));
export const rate = known((value) => (value === 0 ? "0" : isBelow(value, 0.01) ? fine(value) : usual(value)));
export const ms = known((value) => (Math.abs(value) >= 999.5 ? `${usual(value / 1000)} s` : `${usual(value)} ms`));
export const percent = known((value) => `${value === 0 ? "0" : isBelow(value, 0.0001) ? fine(value * 100) : usual(value * 100)} %`);
export const score = known((value) => digits(value, 3));

/** Without trailing zeros, for axes. */
export const trimmed = (text) => text.replace(/\.(\d*?)0+(?!\d)/, (_, kept) => (kept ? `.${kept}` : ""));

/** hh:mm:ss in the user's time zone; with the date unless it is today. */
export const clock = (time) => (new Date(time).toDateString() === new Date().toDateString() ? new Date(time).toLocaleTimeString("en-GB") : dateTime(time));

/** A time before the last clock change names its zone, because one hour occurs twice. */
export function dateTime(time) {
  const at = new Date(time);
  const timeZoneName = at.getTimezoneOffset() === new Date().getTimezoneOffset() ? undefined : "short";
  return at.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName });
}

/** The zone in which times are shown: "Asia/Kathmandu, UTC+05:45". */
export function zone() {
  const format = new Intl.DateTimeFormat("en-GB", { timeZoneName: "longOffset" });
  const offset = format.formatToParts().find(({ type }) => type === "timeZoneName").value.replace("GMT", "UTC");
  const { timeZone } = format.resolvedOptions();
  return timeZone === "UTC" ? timeZone : `${timeZone}, ${offset}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${digits(seconds / 3600, seconds < 36_000 ? 1 : 0)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export const WINDOWS = {
  "5m": "5 minutes",
  "15m": "15 minutes",
  "1h": "hour",
  "6h": "6 hours",
  "24h": "24 hours",
  "7d": "7 days",
  "30d": "30 days",
};

const perSecond = (value) => `${rate(value)} /s`;

const METRICS = {
  requests: ["Requests", count],
  predictions: ["Answered predictions", count],
  throughput_per_s: ["Throughput", perSecond],
  error_rate: ["Error rate", percent],
  limited_rate: ["Limited rate", percent],
  "latency_ms.mean": ["Mean latency", ms],
  "latency_ms.p50": ["p50 latency", ms],
  "latency_ms.p90": ["p90 latency", ms],
  "latency_ms.p95": ["p95 latency", ms],
  "latency_ms.p99": ["p99 latency", ms],
  "latency_ms.max": ["Maximum latency", ms],
  "confidence.mean": ["Mean confidence", score],
  label_share: ["Label share", percent],
  accuracy: ["Accuracy", percent],
  "drift.labels": ["Label drift", score],
  "drift.confidence": ["Confidence drift", score],
  "drift.length": ["Length drift", score],
};

/** Metrics of threshold rules. */
export const RULE_METRICS = Object.keys(METRICS);

/** Further figures of reports. */
const REPORTED = {
  "latency_ms.tail_ratio": "p99 over p50 latency",
  cached_share: "Answers from the cache",
  "computed_latency_ms.p95": "p95 latency without the cache",
  "queue_ms.p95": "p95 queue time",
  "compute_ms.p95": "p95 compute time",
  "tokens.p95": "p95 text length in tokens",
};

/** The name of a rule's metric or a report's figure. */
export function metricName(metric) {
  if (metric in REPORTED) return REPORTED[metric];
  if (metric.startsWith("errors.")) return `Errors: ${metric.slice("errors.".length).replaceAll("_", " ")}`;
  return METRICS[metric]?.[0] ?? metric;
}

export const metricValue = (metric, value) => (METRICS[metric]?.[1] ?? rate)(value);

const exact = (value) => value.toLocaleString("en", { maximumSignificantDigits: 15 }); // further digits are rounding errors
const EXACT = new Map([
  [ms, (value) => (value >= 1000 ? `${exact(value / 1000)} s` : `${exact(value)} ms`)],
  [percent, (value) => `${exact(value * 100)} %`],
  [perSecond, (value) => `${exact(value)} /s`],
]);

/** The unit in which a limit is entered, and how many of it are one of the metric's own. */
export const unitOf = (metric) => new Map([[ms, ["ms", 1]], [percent, ["%", 100]], [perSecond, ["/s", 1]]]).get(METRICS[metric]?.[1]) ?? ["", 1];

/** A limit exactly as it was set. */
export const limitValue = (metric, value) => (EXACT.get(METRICS[metric]?.[1]) ?? exact)(value);

/** A length of time as it was set: "90 s", "5 min". */
export function exactDuration(seconds) {
  const [length, unit] = seconds % 3600 === 0 ? [3600, "h"] : seconds % 60 === 0 ? [60, "min"] : [1, "s"];
  return `${exact(seconds / length)} ${unit}`;
}

/** A figure of a report, by its unit; a change has its sign, and that of a share is in percentage points. */
export function figureValue({ value, unit, window }) {
  const isChange = window.startsWith("delta_");
  const formats = {
    count,
    per_s: (v) => `${rate(v)} /s`,
    share: (v) => (isChange ? percent(v).replace("%", "percentage points") : percent(v)),
    ms,
    ratio: (v) => `${usual(v)}×`,
    score,
    percent: (v) => `${usual(v)} %`,
  };
  return `${isChange && value > 0 ? "+" : ""}${(formats[unit] ?? rate)(value)}`;
}
