/*
A bundle of arraylstm-export, run one item at a time. Copy this file into your application: it needs onnxruntime and a
function that reads the bundle's files, and knows neither Node nor the browser.

    import { readFile } from "node:fs/promises";
    import * as ort from "onnxruntime-node"; // or "onnxruntime-web/wasm"
    import { Model } from "./model.mjs";

    const model = await Model.open(ort, (name) => readFile(`bundle/${name}`));
    let state = model.start(); // one state per session; keep it wherever you keep the session
    for (const label of ["login", "search", "view"]) {
      const answer = await model.step(state, [model.id(label)]);
      state = answer.state;
      console.log(label, "then", model.top(answer.scores[0], 3));
    }
*/

const SCHEMA_VERSIONS = [1, 2];
const ARRAYS = { float32: Float32Array, float64: Float64Array };

export class Model {
  /** Open the bundle whose files `await read(name)` returns as bytes; `ort` is any of onnxruntime's npm packages. */
  static async open(ort, read) {
    const manifest = await readJson(read, "manifest.json");
    if (!SCHEMA_VERSIONS.includes(manifest?.schema_version)) {
      const known = SCHEMA_VERSIONS.join(" and ");
      throw new Error(`manifest.json has schema_version ${manifest?.schema_version}; this program reads ${known}`);
    }
    manifest.states.forEach(checkState);
    const vocabulary = await readJson(read, "vocabulary.json");
    return new Model(ort, manifest, vocabulary, await openGraph(ort, read, "step.onnx"));
  }

  constructor(ort, manifest, { labels, unknown }, session) {
    Object.assign(this, { ort, manifest, unknown, session });
    this.numItems = manifest.model.num_items;
    this.labels = labels ?? Array.from({ length: this.numItems }, (_, id) => id);
    const rounded = this.labels.find((label) => typeof label === "number" && !Number.isSafeInteger(label));
    if (rounded !== undefined) throw new Error(`item ${rounded} is beyond what JavaScript reads exactly; use strings`);
    this.ids = new Map(this.labels.map((label, id) => [label, id]));
    if (this.ids.size !== this.numItems) {
      throw new Error(`vocabulary.json tells apart ${this.ids.size} labels; the model has ${this.numItems} items`);
    }
  }

  /** The state of `rows` sessions that have seen nothing: tensors by the name of the graph's input. */
  start(rows = 1) {
    return Object.fromEntries(
      this.manifest.states.map(({ name, shape, dtype, initial }) => {
        const size = sizeOf(shape);
        const numbers = new ARRAYS[dtype](rows * size);
        if (initial !== "zeros") for (let row = 0; row < rows; row += 1) numbers.set(initial, row * size);
        return [`state_${name}`, new this.ort.Tensor(dtype, numbers, [rows, ...shape])];
      }),
    );
  }

  /**
   * Move every row on by one item id. Returns `scores` (a Float32Array of numItems logits per row), the next `state`,
   * and `outputs`, all that the graph gave, a Markov cell's diagnostics among it. What went in is left as it was.
   */
  async step(state, items) {
    const wrong = items.find((id) => !Number.isInteger(id) || id < 0 || id >= this.numItems);
    if (wrong !== undefined) throw new RangeError(`item id ${wrong} is outside 0..${this.numItems - 1}`);
    const ids = new this.ort.Tensor("int64", BigInt64Array.from(items, BigInt), [items.length]);
    const outputs = await this.session.run({ items: ids, ...state });
    const { data } = outputs.logits;
    const scores = items.map((_, row) => data.subarray(row * this.numItems, (row + 1) * this.numItems));
    const next = Object.fromEntries(Object.keys(state).map((name) => [name, outputs[`next_${name}`]]));
    return { scores, state: next, outputs };
  }

  /** The id of a label; 5 and "5" are two labels. */
  id(label) {
    const id = this.ids.get(label) ?? this.ids.get(this.unknown);
    if (id !== undefined) return id;
    const some = this.labels.slice(0, 5).map((known) => JSON.stringify(known));
    throw new RangeError(
      `unknown item ${JSON.stringify(label)}; the model knows ${this.numItems}, such as ${some.join(", ")}`,
    );
  }

  /** The k most likely items of one row of scores, most likely first, equal ones by id. */
  top(scores, k) {
    const best = [];
    scores.forEach((score, id) => {
      if (best.length === k && !(score > scores[best.at(-1)])) return;
      const place = best.findIndex((other) => score > scores[other]);
      best.splice(place < 0 ? best.length : place, 0, id);
      best.length = Math.min(best.length, k);
    });
    const normaliser = logSumExp(scores);
    return best.map((id) => ({ id, label: this.labels[id], probability: Math.exp(scores[id] - normaliser) }));
  }

  /** How likely one row of scores held an item that then came, and its rank, 1 for the most likely. */
  observe(scores, id) {
    const rank = scores.reduce((above, score) => above + (score > scores[id]), 1);
    return { probability: Math.exp(scores[id] - logSumExp(scores)), rank };
  }
}

/** Open one of the bundle's graphs; a step is too little work to share among threads. */
export async function openGraph(ort, read, name) {
  const bytes = await read(name);
  try {
    return await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1 });
  } catch (error) {
    throw new Error(`${name} is not a graph that onnxruntime can run: ${error.message}`);
  }
}

async function readJson(read, name) {
  const text = new TextDecoder().decode(await read(name));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is not JSON: ${error.message}`);
  }
}

/** A state starts from zeros, or from the numbers of one row, which the manifest lists. */
function checkState({ name, dtype, shape, initial }) {
  if (!(dtype in ARRAYS)) {
    throw new Error(`state ${name} is ${dtype}; this program keeps ${Object.keys(ARRAYS).join(" or ")}`);
  }
  if (initial === "zeros") return;
  const size = sizeOf(shape);
  if (!Array.isArray(initial) || initial.length !== size || !initial.every(Number.isFinite)) {
    const given = Array.isArray(initial) ? `${initial.length} values` : initial;
    throw new Error(`state ${name} is initially ${given}; this program starts from zeros or the ${size} numbers of a row`);
  }
}

function sizeOf(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

function logSumExp(scores) {
  const top = scores.reduce((larger, score) => Math.max(larger, score));
  return top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - top), 0));
}
