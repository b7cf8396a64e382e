// Replays a bundle's test vectors and tells how far this runtime's answers lie from float64 PyTorch's.

import { Model, openGraph } from "./model.mjs";
import { readNpz } from "./npz.mjs";

const STEP = "step.onnx";
const SEQUENCE = "sequence.onnx";
const LEAST_ALLOWED = 1e-5; // another runtime than the one that the bundle was checked with may round otherwise

/** Replay every vector; `ort` and `read` are those of Model.open. */
export async function replay(ort, read) {
  const model = await Model.open(ort, read);
  const sequence = await openGraph(ort, read, SEQUENCE);
  const steps = await readVectors(read, model.manifest, STEP);
  const sequences = await readVectors(read, model.manifest, SEQUENCE);
  const rows = [
    await compare(STEP, steps, (vector, largest) => replayGraph(ort, model.session, vector, largest)),
    await compare(SEQUENCE, sequences, (vector, largest) => replayGraph(ort, sequence, vector, largest)),
    await compare(`${STEP}, item by item`, sequences, (vector, largest) => replayItems(model, vector, largest)),
  ];
  const difference = Math.max(...rows.map((row) => row.difference));
  const allowed = Math.max(model.manifest.tolerance.allowed, LEAST_ALLOWED);
  return { rows, difference, allowed, passed: difference <= allowed };
}

/** A difference as every replay program writes it: 2.4e-07. */
export function scientific(difference) {
  return difference.toExponential(1).replace(/(?<=e[+-])(?=\d$)/, "0");
}

/** A vector through its graph in one call. */
async function replayGraph(ort, session, { inputs, outputs }, largest) {
  const feeds = mapValues(inputs, ({ dtype, data, dims }) => new ort.Tensor(dtype, data, dims));
  const actual = await session.run(feeds);
  for (const [name, { data }] of Object.entries(outputs)) largest.see(name, actual[name].data, data);
}

/** A sequence as an application meets it: each row alone, one item after the other, up to the row's length. */
async function replayItems(model, { inputs: { items, lengths, ...states }, outputs }, largest) {
  const alike = startAlike(states);
  for (const [row, length] of lengths.data.entries()) {
    let state = alike ? model.start() : mapValues(states, (all) => oneRow(model.ort, part(all, row)));
    for (let step = 0; step < length; step += 1) {
      const answer = await model.step(state, [Number(part(items, row).data[step])]);
      state = answer.state;
      for (const [name, { data }] of Object.entries(answer.outputs)) {
        if (!isState(name)) largest.see(name, data, part(part(outputs[name], row), step).data);
      }
    }
    for (const [name, { data }] of Object.entries(state)) {
      largest.see(`next_${name}`, data, part(outputs[`next_${name}`], row).data);
    }
  }
}

/** What the vectors of a graph are: arrays by name, those that go in apart from those that should come out. */
async function readVectors(read, { files, graphs }, graph) {
  const folder = `vectors/${graph.replace(".onnx", "")}/`;
  const names = Object.keys(files).filter((name) => name.startsWith(folder) && name.endsWith(".npz"));
  if (!names.length) throw new Error(`manifest.json lists no ${folder}*.npz`);
  return Promise.all(names.map(async (name) => readVector(name, await read(name), graphs[graph])));
}

function readVector(name, bytes, signature) {
  let arrays;
  try {
    arrays = readNpz(bytes);
  } catch (error) {
    throw new Error(`${name} is not an .npz of test vectors: ${error.message}`);
  }
  const choose = (tensors) => Object.fromEntries(tensors.map((tensor) => [tensor.name, arrays[tensor.name]]));
  const missing = [...signature.inputs, ...signature.outputs].find((tensor) => !(tensor.name in arrays));
  if (missing) throw new Error(`${name} holds no array ${missing.name}`);
  const file = name.slice(name.lastIndexOf("/") + 1);
  return { file, inputs: choose(signature.inputs), outputs: choose(signature.outputs) };
}

async function compare(graph, vectors, run) {
  const largest = new Largest();
  for (const vector of vectors) {
    largest.file = vector.file;
    await run(vector, largest);
  }
  return { graph, vectors: vectors.length, difference: largest.difference, where: largest.where };
}

/** The largest |actual - expected| / max(1, |expected|) seen, and in which tensor of which file. */
class Largest {
  difference = -1;

  see(tensor, actual, expected) {
    if (actual.length !== expected.length) {
      throw new Error(`${tensor} has ${actual.length} numbers where the vector has ${expected.length}`);
    }
    expected.forEach((value, index) => {
      const difference = Math.abs(actual[index] - value) / Math.max(1, Math.abs(value));
      if (difference <= this.difference) return;
      this.difference = Number.isNaN(difference) ? Infinity : difference;
      this.where = `${tensor} of ${this.file}`;
    });
  }
}

/** The array at an index of the first axis. */
function part({ dtype, data, dims: [, ...dims] }, index) {
  const size = dims.reduce((product, length) => product * length, 1);
  return { dtype, dims, data: data.subarray(index * size, (index + 1) * size) };
}

/** Whether the rows, two at least, all start alike, as sessions do: then it is the model's to say where. */
function startAlike(states) {
  return Object.values(states).every((all) => {
    const { data: first } = part(all, 0);
    return all.dims[0] > 1 && all.data.every((value, index) => value === first[index % first.length]);
  });
}

function oneRow(ort, { dtype, data, dims }) {
  return new ort.Tensor(dtype, data, [1, ...dims]);
}

function isState(name) {
  return name.startsWith("next_state_");
}

function mapValues(object, change) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));
}
