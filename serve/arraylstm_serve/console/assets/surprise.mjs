// How much each item of the session surprised the model: a column for each, and words for the one pointed at.

/** @import { Moment, State } from "./types.mjs" */
/** @import { Store } from "./store.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { bits, bitsOf, percent, whole } from "./format.mjs";
import { show } from "./items.mjs";

const SHOWN = 500;

/** @param {Store} store */
export function surprise(store) {
  listen(store);
  const views = [
    view(({ session: { history, id }, model, chosen }) => [history, id, model, chosen], draw),
    view(({ session: { history } }) => [history], scrollToEnd),
  ];
  return (/** @type {State} */ state) => views.forEach((each) => each(state));
}

/** @param {Store} store */
function listen(store) {
  const frame = find("#columns-frame");
  const point = (/** @type {Event} */ event) => {
    const column = /** @type {Element} */ (event.target).closest("li");
    if (column) store.change({ chosen: Number(column.dataset.step) });
  };
  frame.addEventListener("pointerover", point);
  frame.addEventListener("pointerleave", () => store.change({ chosen: null }));
  frame.addEventListener("blur", () => store.change({ chosen: null }));
  frame.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => move(event, store));
}

/** @param {KeyboardEvent} event @param {Store} store */
function move(event, { state: { session, chosen }, change }) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const shown = session.history.slice(-SHOWN);
  if (!by || !shown.length) return;
  event.preventDefault();
  const at = chosen === null ? shown.length - 1 : shown.findIndex(({ step }) => step === chosen);
  const next = shown[Math.min(Math.max(at + (chosen === null ? 0 : by), 0), shown.length - 1)];
  change({ chosen: next.step });
  find(`#columns li[data-step="${next.step}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function scrollToEnd() {
  const frame = find("#columns-frame");
  frame.scrollLeft = frame.scrollWidth;
}

/** @param {State} state */
function draw({ session: { history, step }, model, chosen }) {
  const items = model?.model.num_items ?? 1;
  const guess = Math.log2(items);
  const shown = history.slice(-SHOWN);
  const top = ceiling(shown, guess);
  drawTicks(top, guess);
  fill(find("#columns"), shown, column, (child, moment) =>
    drawColumn(child, moment, top, guess, moment.step === chosen),
  );
  const pointed = shown.find((moment) => moment.step === chosen) ?? shown.at(-1);
  fill(find("#reading"), pointed ? words(pointed, items) : [empty(step)], () => make("span"), write);
}

/**
 * The bits at the top of the scale: an even number, above the bits of a uniform guess.
 * @param {Moment[]} moments
 * @param {number} guess
 */
function ceiling(moments, guess) {
  const most = moments.map(surpriseOf).filter(Number.isFinite);
  return 2 * Math.max(1, Math.ceil(Math.max(guess * 1.1, ...most) / 2));
}

/** @param {Moment} moment */
function surpriseOf({ probability }) {
  return probability === null ? NaN : bitsOf(probability);
}

/** @param {number} top @param {number} guess */
function drawTicks(top, guess) {
  const ticks = [
    { at: 0, text: "0" },
    { at: top / 2, text: whole(top / 2) },
    { at: top, text: whole(top) },
    { at: guess, text: "even guess" },
  ];
  fill(
    find("#ticks"),
    ticks,
    () => make("span"),
    (child, { at, text }) => {
      child.style.setProperty("--at", at / top);
      child.className = text === "even guess" ? "guess" : "";
      write(child, text);
    },
  );
}

function column() {
  return make(
    "li",
    {},
    make("i"),
    make("span", { className: "name", ariaHidden: "true" }),
    make("span", { className: "unseen" }),
  );
}

/**
 * @param {any} child
 * @param {Moment} moment
 * @param {number} top
 * @param {number} guess
 * @param {boolean} chosen
 */
function drawColumn(child, moment, top, guess, chosen) {
  const surprise = surpriseOf(moment);
  child.dataset.step = moment.step;
  child.className = kindOf(moment, surprise > guess);
  child.classList.toggle("chosen", chosen);
  child.classList.toggle("unlisted", Boolean(moment.unknown));
  child.style.setProperty("--height", String(Math.min(1, (surprise || 0) / top)));
  write(child.children[1], show(moment.item));
  write(child.children[2], words(moment, 0).join(", "));
}

/** @param {Moment} moment @param {boolean} above Whether an even guess would have been better. */
function kindOf({ seen, probability }, above) {
  if (!seen) return "unknown";
  if (probability === null) return "first";
  return above ? "above" : "";
}

/** @param {Moment} moment @param {number} items @returns {string[]} */
function words({ step, item, probability, rank, seen, unknown }, items) {
  const place = [`step ${whole(step)}`, show(item), ...(unknown ? ["unknown to the model"] : [])];
  if (!seen) return [...place, "came before this page"];
  if (probability === null || rank === null) return [...place, "the first item: nothing was expected before it"];
  return [
    ...place,
    bits(bitsOf(probability)),
    `expected at ${percent(probability)}`,
    `rank ${whole(rank)}${items ? ` of ${whole(items)}` : ""}`,
  ];
}

/** @param {number} step */
function empty(step) {
  return step
    ? "The items so far were sent before this page was opened."
    : "A column for each item you send: the higher, the less expected it was.";
}
