// The hidden state at one step, and how it differs from the one before.

/** @import { Manifest, Snapshot } from "./types.mjs" */
import { parse } from "./safetensors.mjs";

const PREFIX = "state_";

/** @param {ArrayBuffer} file @returns {Snapshot} */
export function readSnapshot(file) {
  const { metadata, tensors } = parse(file);
  const states = Object.entries(tensors).filter(([name]) => name.startsWith(PREFIX));
  return { step: Number(metadata.step), tensors: Object.fromEntries(states), file };
}

/** @param {string} name */
export const shortName = (name) => name.slice(PREFIX.length);

/**
 * The state of a session before its first item, by the model's manifest.
 * @param {Manifest} manifest
 * @returns {Snapshot}
 */
export function nothingYet({ states }) {
  const size = (/** @type {number[]} */ shape) => shape.reduce((product, each) => product * each, 1);
  const zeros = states.map(({ name, shape }) => [PREFIX + name, { shape, data: new Float32Array(size(shape)) }]);
  return { step: 0, tensors: Object.fromEntries(zeros), file: new ArrayBuffer(0) };
}

/** The state every session begins with: the same tensors, all zero. @param {Snapshot} snapshot @returns {Snapshot} */
export function beginning({ tensors }) {
  const zeros = Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: data.map(() => 0) }]);
  return { step: 0, tensors: Object.fromEntries(zeros), file: new ArrayBuffer(0) };
}

/**
 * What to draw of a tensor: its values, or how they changed; null where that is not known.
 * @param {Snapshot} now
 * @param {Snapshot | null} before
 * @param {string} name
 * @param {"values" | "change"} mode
 * @returns {Float32Array | null}
 */
export function numbers(now, before, name, mode) {
  const { data } = now.tensors[name];
  if (mode === "values") return data;
  const old = before?.tensors[name].data;
  return old ? data.map((value, index) => value - old[index]) : null;
}

/** The name under which a tensor's reach is kept. @param {string} name @param {"values" | "change"} mode */
export const reachOf = (name, mode) => `${name} ${mode}`;

/**
 * The largest distance of each tensor from zero so far, so that a colour means the same throughout a session.
 * @param {Record<string, number>} reach @param {Snapshot} now @param {Snapshot | null} before
 */
export function extend(reach, now, before) {
  const longer = { ...reach };
  for (const name of Object.keys(now.tensors)) {
    for (const mode of /** @type {const} */ (["values", "change"])) {
      const key = reachOf(name, mode);
      const data = numbers(now, before, name, mode) ?? new Float32Array();
      longer[key] = data.reduce((most, value) => Math.max(most, Math.abs(value)), longer[key] ?? 0);
    }
  }
  return longer;
}
