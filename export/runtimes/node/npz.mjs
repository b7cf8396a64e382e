// Reads NumPy's .npz: a zip file of .npy arrays.

import { unzipSync } from "fflate";

const ARRAYS = { "<f4": ["float32", Float32Array], "<f8": ["float64", Float64Array], "<i8": ["int64", BigInt64Array] };

/** The arrays of an .npz file by name, each `{ dtype, dims, data }`. */
export function readNpz(bytes) {
  const files = Object.entries(unzipSync(bytes));
  return Object.fromEntries(files.map(([name, content]) => [name.replace(/\.npy$/, ""), readNpy(content)]));
}

/** One array: a magic string, the length of a header, the header as a Python dict, the numbers. */
function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  const [, descr, shape] = /'descr': '(.+?)', 'fortran_order': False, 'shape': \((.*?)\)/.exec(header) ?? [];
  if (!(descr in ARRAYS))
    throw new Error(`array of another kind than ${Object.keys(ARRAYS)} in row-major order: ${header}`);
  const [dtype, Numbers] = ARRAYS[descr];
  const dims = shape
    .split(",")
    .filter((size) => size.trim())
    .map(Number);
  return { dtype, dims, data: new Numbers(bytes.slice(start + length).buffer) };
}
