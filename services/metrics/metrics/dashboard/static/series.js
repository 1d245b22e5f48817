// An aggregate's series as columns to plot: times in seconds, and one array per line.

const SHORTEST_S = 5; // a rate is not computed from a shorter part of a bucket

/** `{times, columns}` for each plot by its id. */
export function columnsOf(aggregate) {
  const { series } = aggregate;
  const times = series.map((point) => Date.parse(point.at) / 1000);
  const covered = coveredSeconds(times, aggregate.range);
  const perSecond = (field) => series.map((point, i) => (covered[i] < SHORTEST_S ? null : point[field] / covered[i]));
  const share = (part, whole) => series.map((point) => (whole(point) ? part(point) / whole(point) : null));
  return {
    throughput: { times, columns: ["predictions", "rate_limited", "errors"].map(perSecond) },
    latency: { times, columns: ["p50", "p95", "p99"].map((field) => series.map((point) => point[field] ?? null)) },
    work: { times, columns: ["queue_p95_ms", "compute_p95_ms"].map((field) => series.map((point) => point[field] ?? null)) },
    cache: { times, columns: [series.map((point) => point.cached_share ?? null)] },
    rates: {
      times,
      columns: [
        share((point) => point.errors, (point) => point.requests - point.rate_limited),
        share((point) => point.rate_limited, (point) => point.requests),
      ],
    },
  };
}

/** The seconds of each bucket inside the range, which cuts the first and the last one. */
function coveredSeconds(times, range) {
  const start = Date.parse(range.start) / 1000;
  const end = Date.parse(range.end) / 1000;
  return times.map((time, i) => Math.min(times[i + 1] ?? end, end) - Math.max(time, start));
}
