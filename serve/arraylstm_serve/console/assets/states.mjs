// The session's hidden state, or how the last items changed it: a picture for each tensor.

/** @import { State, Tensor } from "./types.mjs" */
/** @import { Store } from "./store.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { brief, counted, plusMinus, roundUp, whole } from "./format.mjs";
import { indexAt, layOut, paint } from "./heatmap.mjs";
import { nothingYet, numbers, reachOf, shortName } from "./snapshot.mjs";

/** @param {Store} store */
export function states(store) {
  for (const radio of document.querySelectorAll('#mode input[type="radio"]')) {
    radio.addEventListener("change", (event) => store.change({ mode: /** @type {any} */ (event.target).value }));
  }
  const again = () => draw(store.state);
  new ResizeObserver(again).observe(find("#states"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  return view(({ session: { now, before, reach }, mode, model }) => [now, before, reach, mode, model], draw);
}

/** @param {State} state */
function draw({ session: { now, before, reach }, mode, model }) {
  write(find("#state-hint"), hint(now?.step, before?.step, mode));
  const blank = model ? nothingYet(model).tensors : {};
  fill(find("#states"), Object.entries(blank), figure, (child, [name, zeros]) => {
    const data = (now?.tensors[name] && numbers(now, before, name, mode)) ?? zeros.data;
    drawFigure(child, name, { shape: zeros.shape, data }, reach[reachOf(name, mode)], model?.model.k);
  });
}

/** @param {number | undefined} now @param {number | undefined} before @param {State["mode"]} mode */
function hint(now, before, mode) {
  if (now === undefined) return "All zeros so far; each item changes them.";
  if (mode === "values") return `After step ${whole(now)}.`;
  if (before === undefined) return "Send an item to see what it changes.";
  return `What step ${before + 1 === now ? whole(now) : `${whole(before + 1)} to ${whole(now)}`} changed.`;
}

function figure() {
  const name = make("b");
  const legend = make("span", { className: "legend" }, make("span"), make("i"), make("span"));
  const caption = make(
    "figcaption",
    {},
    name,
    make("span", { className: "shape" }),
    make("span", { className: "value" }),
    legend,
  );
  return make("figure", {}, caption, make("canvas", { role: "img" }));
}

/**
 * @param {HTMLElement} child
 * @param {string} name
 * @param {Tensor} tensor
 * @param {number} reach
 * @param {number} [k]
 */
function drawFigure(child, name, { shape, data }, reach, k) {
  const [caption, canvas] = /** @type {any} */ (child.children);
  const [title, size, value, legend] = caption.children;
  const limit = reach ? roundUp(reach) : 1;
  const length = shape.at(-1) ?? 1;
  const grid = layOut(shape, /** @type {Element} */ (child.parentElement).clientWidth);
  paint(canvas, data, length, grid, limit, coloursOf(canvas));
  write(title, shortName(name));
  write(size, described(shape, k));
  write(legend.children[0], `−${brief(limit)}`);
  write(legend.children[2], `+${brief(limit)}`);
  canvas.ariaLabel = spoken(name, shape, data, k);
  canvas.onpointermove = (/** @type {PointerEvent} */ event) => {
    const index = indexAt(grid, event.offsetX, event.offsetY, length);
    write(value, index < 0 ? "" : `${position(index, shape)} ${plusMinus(data[index])}`);
  };
  canvas.onpointerleave = () => write(value, "");
}

/** The style sheet's colours, as they are in light or dark. @param {Element} element */
function coloursOf(element) {
  const style = getComputedStyle(element);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name);
  return { above: colour("--above"), below: colour("--below"), zero: colour("--zero"), text: style.color };
}

/** @param {number[]} shape @param {number} [k] */
function described(shape, k) {
  if (shape.length === 1) return counted(shape[0], "unit");
  if (shape.length === 2 && shape[0] === k) return `${counted(shape[0], "lane")} of ${counted(shape[1], "unit")}`;
  return shape.join(" × ") || "one number";
}

/** @param {string} name @param {number[]} shape @param {Float32Array} data @param {number} [k] */
function spoken(name, shape, data, k) {
  const [least, most] = data.reduce(
    ([low, high], each) => [Math.min(low, each), Math.max(high, each)],
    [Infinity, -Infinity],
  );
  return `${shortName(name)}, ${described(shape, k)}, from ${plusMinus(least)} to ${plusMinus(most)}`;
}

/** An index along every axis, from 1. @param {number} index @param {number[]} shape */
function position(index, shape) {
  /** @type {number[]} */
  const places = [];
  for (const size of [...shape].reverse()) {
    places.unshift((index % size) + 1);
    index = Math.floor(index / size);
  }
  return `[${places.join(", ")}]`;
}
