// Counters that only grow, turned into the figures of the last minute.

/** @import { Stats } from "./types.mjs" */

const KEPT = 60;
const GAP = 5; // seconds without an answer after which the minute starts again

/**
 * @typedef {object} Figures
 * @property {number} events Per second, as the two below.
 * @property {number} steps
 * @property {number} requests
 * @property {number | null} batch Steps in a batch; null where there was none.
 * @property {number} busy The engine's share of the time.
 * @property {number} sessions
 * @property {number} pending
 * @property {number} evicted Since the server started.
 */
/** @typedef {{last: Stats | null, minute: Figures[]}} Series */

/** @type {Series} */
export const NOTHING = { last: null, minute: [] };

/**
 * Add an answer of the server to the series. A server that was restarted or away starts a new series.
 * @param {Series} series
 * @param {Stats} stats
 * @returns {Series}
 */
export function advance({ last, minute }, stats) {
  const seconds = last ? stats.uptime_seconds - last.uptime_seconds : NaN;
  if (!last || seconds > GAP || stats.requests_total < last.requests_total) return { last: stats, minute: [] };
  if (seconds <= 0) return { last, minute };
  return { last: stats, minute: [...minute, between(last, stats, seconds)].slice(-KEPT) };
}

/** @param {Stats} last @param {Stats} stats @param {number} seconds @returns {Figures} */
function between(last, stats, seconds) {
  const batches = stats.batches_total - last.batches_total;
  return {
    events: (stats.events_total - last.events_total) / seconds,
    steps: (stats.steps_total - last.steps_total) / seconds,
    requests: (stats.requests_total - last.requests_total) / seconds,
    batch: batches ? (stats.steps_total - last.steps_total) / batches : null,
    busy: Math.min(1, (stats.busy_seconds_total - last.busy_seconds_total) / seconds),
    sessions: stats.sessions,
    pending: stats.pending,
    evicted: Object.values(stats.evicted).reduce((sum, count) => sum + count, 0),
  };
}
