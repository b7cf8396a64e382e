// The server's figures over the last minute.

/** @import { State } from "./types.mjs" */
/** @import { Figures } from "./figures.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { brief, counted, share, span, whole } from "./format.mjs";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 60;
const HEIGHT = 16;

/**
 * @typedef {{name: string, of: keyof Figures, unit?: string, write: (value: number) => string, whole?: number}} Tile
 */

/** @type {Tile[]} */
const TILES = [
  { name: "Events", of: "events", unit: "/s", write: brief },
  { name: "Steps", of: "steps", unit: "/s", write: brief },
  { name: "Mean batch", of: "batch", write: brief },
  { name: "Engine busy", of: "busy", write: share, whole: 1 },
  { name: "Sessions", of: "sessions", write: whole },
  { name: "Pending", of: "pending", write: whole },
  { name: "Evicted", of: "evicted", write: whole },
  { name: "Requests", of: "requests", unit: "/s", write: brief },
];

export function server() {
  return view(({ series, status }) => [series, status], draw);
}

/** @param {State} state */
function draw({ series, status }) {
  find("#server").dataset.stale = String(status !== "live" && status !== "draining");
  fill(find("#figures"), TILES, tile, (child, each) => drawTile(child, each, series));
  write(find("#uptime"), series.last ? `up ${span(series.last.uptime_seconds)}` : "");
  write(find("#tallies"), series.last ? tallies(series.last) : "The figures appear when the server answers.");
}

/** @param {import("./types.mjs").Stats} stats */
function tallies(stats) {
  const { evicted } = stats;
  const counts = [
    counted(stats.steps_total, "step"),
    counted(stats.unknown_items_total, "unknown item"),
    counted(stats.replays_total, "replay"),
    counted(stats.conflicts_total, "conflict"),
  ];
  const ends = `evicted ${whole(evicted.expired)} by age, ${whole(evicted.room)} for room, ${whole(evicted.answers)} for answers`;
  const device = stats.provider.replace("ExecutionProvider", "");
  const where = `Room for ${whole(stats.max_sessions)} sessions. ${device}, version ${stats.version}.`;
  return `Since it started: ${counts.join(", ")}; ${ends}. ${where}`;
}

function tile() {
  const line = document.createElementNS(SVG, "svg");
  line.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  line.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("aria-hidden", "true");
  line.append(document.createElementNS(SVG, "path"), document.createElementNS(SVG, "path"));
  return make("li", {}, make("span", { className: "label" }), make("b"), make("span", { className: "unit" }), line);
}

/** @param {HTMLElement} child @param {Tile} tile @param {State["series"]} series */
function drawTile(child, { name, of, unit, write: worded, whole }, { minute }) {
  const [label, value, per, line] = /** @type {any} */ (child.children);
  const values = minute.map((each) => each[of]);
  const last = values.at(-1) ?? null;
  write(label, name);
  write(value, last === null ? "–" : worded(last));
  write(per, last === null ? "" : (unit ?? ""));
  const path = trace(values, whole);
  line.children[0].setAttribute("d", path && `${path}V${HEIGHT}H${WIDTH - values.length + 1}Z`);
  line.children[1].setAttribute("d", path);
}

/**
 * The minute as a path, the newest value at the right. A missing value repeats the one before it.
 * @param {(number | null)[]} values
 * @param {number} [whole]
 */
function trace(values, whole) {
  const most = whole ?? Math.max(1e-9, ...values.map((value) => value ?? 0));
  let last = 0;
  const points = values.map((value, index) => {
    last = value ?? 0;
    return `${WIDTH - values.length + 1 + index} ${(HEIGHT - 1 - (last / most) * (HEIGHT - 2)).toFixed(2)}`;
  });
  return points.length > 1 ? `M${points.join("L")}` : "";
}
