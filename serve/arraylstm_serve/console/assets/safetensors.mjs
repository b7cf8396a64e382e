// A safetensors file: the length of a JSON header (8 bytes), the header, then the numbers, everything little-endian.

/** @type {Record<string, new (buffer: ArrayBuffer) => any>} */
const TYPES = { F32: Float32Array, I64: BigInt64Array };
const LENGTH = 8;

/**
 * Read a file.
 * @param {ArrayBuffer} file
 * @returns {{metadata: Record<string, string>, tensors: Record<string, {shape: number[], data: any}>}}
 */
export function parse(file) {
  const begin = LENGTH + Number(new DataView(file).getBigUint64(0, true));
  const header = new TextDecoder().decode(file.slice(LENGTH, begin));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(header);
  /** @type {Record<string, {shape: number[], data: any}>} */
  const tensors = {};
  for (const [
    name,
    {
      dtype,
      shape,
      data_offsets: [from, to],
    },
  ] of Object.entries(entries)) {
    if (!TYPES[dtype]) throw new Error(`The tensor ${name} is of type ${dtype}, which this page does not read.`);
    tensors[name] = { shape, data: new TYPES[dtype](file.slice(begin + from, begin + to)) };
  }
  return { metadata, tensors };
}
