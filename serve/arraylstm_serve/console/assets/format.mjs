// Numbers as people read them.

const significant = new Intl.NumberFormat("en", {
  style: "percent",
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
});
const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const shares = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const signed = new Intl.NumberFormat("en", {
  signDisplay: "exceptZero",
  minimumFractionDigits: 3,
  maximumFractionDigits: 3,
});
const TINY = 1e-6;
const ROUND = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** A probability: three digits, or that it is tiny. @param {number} value */
export function percent(value) {
  return value > 0 && value < TINY ? "< 0.0001%" : significant.format(value);
}

/** @param {number} value */
export const whole = (value) => integers.format(value);

/** @param {number} value */
export const brief = (value) => short.format(value);

/** @param {number} value */
export const share = (value) => shares.format(value);

/** @param {number} value */
export const plusMinus = (value) => signed.format(value).replace("-", "−");

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** The surprise of what had this probability. @param {number} probability */
export function bitsOf(probability) {
  return probability >= 1 ? 0 : -Math.log2(probability);
}

/** @param {number} value */
export function bits(value) {
  return value === Infinity ? "∞ bits" : `${value.toFixed(2)} bits`;
}

/** A span of time in its two largest units. @param {number} seconds */
export function span(seconds) {
  const parts = /** @type {[number, string][]} */ ([
    [Math.floor(seconds / 86400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.floor(seconds) % 60, "s"],
  ]);
  const first = Math.min(parts.findIndex(([count]) => count > 0) >>> 0, 3);
  return parts
    .slice(first, first + 2)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** The least round number that is not below a value. @param {number} value */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = ROUND.find((each) => each * power >= value * (1 - 1e-9)) ?? 10;
  return Number((factor * power).toPrecision(2));
}
