// Items to JSON and back: numbers and texts stay apart, and integers stay exact beyond 2^53.

/** @import { Item, Kind } from "./types.mjs" */

const INTEGER = /^-?(0|[1-9]\d*)$/;
const LEAST = -(2n ** 63n);
const MOST = 2n ** 63n - 1n;
const SUGGESTIONS = 8;

/** @param {string} text */
function integer(text) {
  const exact = BigInt(text);
  return Number.isSafeInteger(Number(text)) ? Number(text) : exact;
}

/** @param {string} text */
export function isInteger(text) {
  return INTEGER.test(text) && text !== "-0" && BigInt(text) >= LEAST && BigInt(text) <= MOST;
}

/** Parse JSON; an integer that a Number cannot hold becomes a BigInt where the browser tells its digits. */
export function parseJson(/** @type {string} */ text) {
  /** @type {(key: string, value: any, context?: {source?: string}) => any} */
  const exactly = (_, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && INTEGER.test(context?.source ?? "")
      ? BigInt(/** @type {string} */ (context?.source))
      : value;
  return JSON.parse(text, exactly);
}

/** Encode as JSON, BigInts by their digits. @param {unknown} value */
export function toJson(value) {
  const { rawJSON } = /** @type {any} */ (JSON); // there wherever parseJson makes BigInts
  return JSON.stringify(value, (_, each) => (typeof each === "bigint" ? rawJSON(String(each)) : each));
}

/** What tells an item from every other. @param {Item} item */
export function keyOf(item) {
  return typeof item === "string" ? `"${item}` : String(item);
}

/**
 * An item as the page shows it: text that looks like a number or like nothing is in quotes.
 * @param {Item} item
 */
export function show(item) {
  if (typeof item !== "string") return String(item);
  return isInteger(item) || item.startsWith('"') || item !== item.trim() || !item ? JSON.stringify(item) : item;
}

/** The word for an item's type. @param {Item} item @returns {Kind} */
export function kindOf(item) {
  return typeof item === "string" ? "text" : "number";
}

/**
 * The item that typed text stands for, undefined for none. Quotes make text of anything; digits are a number, unless
 * the visitor says otherwise or text alone is known by them.
 * @param {string} typed @param {Kind} kind @param {Map<string, Item>} known @returns {Item | undefined}
 */
export function read(typed, kind, known) {
  const text = typed.trim();
  if (!text) return undefined;
  if (isQuoted(text)) return JSON.parse(text);
  if (!isInteger(text) || kind === "text") return text;
  const onlyText = known.has(keyOf(text)) && !known.has(text);
  return kind === "auto" && onlyText ? text : integer(text);
}

/** @param {string} text */
function isQuoted(text) {
  try {
    return text.startsWith('"') && typeof JSON.parse(text) === "string";
  } catch {
    return false;
  }
}

/**
 * Known items that hold the text, whatever its case, the same first, then those that begin with it.
 * @param {string} typed
 * @param {Map<string, Item>} known
 * @returns {Item[]}
 */
export function suggest(typed, known) {
  const wanted = typed.trim().replace(/^"|"$/g, "").toLowerCase();
  /** @type {Item[]} */
  const exact = [];
  const first = [];
  const further = [];
  for (const item of known.values()) {
    const at = String(item).toLowerCase().indexOf(wanted);
    if (at === 0 && String(item).length === wanted.length) exact.push(item);
    else if (at === 0) first.push(item);
    else if (at > 0) further.push(item);
  }
  return [...exact, ...first, ...further].slice(0, SUGGESTIONS);
}
