// node replay.mjs BUNDLE: exits with 0 where onnxruntime in Node gives the bundle's numbers, 1 where not, 2 on bad input.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { getSystemErrorMap } from "node:util";
import * as ort from "onnxruntime-node";
import { replay, scientific } from "./vectors.mjs";

function readerOf(folder) {
  return async (name) => {
    const path = join(folder, name);
    try {
      return await readFile(path);
    } catch (error) {
      throw new Error(`${path} cannot be read: ${getSystemErrorMap().get(error.errno)[1]}`);
    }
  };
}

async function main(folder, ...rest) {
  if (!folder || rest.length)
    throw new Error("give one folder that arraylstm-export has written: node replay.mjs BUNDLE");
  const { rows, difference, passed } = await replay(ort, readerOf(folder));
  for (const row of rows) {
    const largest = `largest difference ${scientific(row.difference)} in ${row.where}`;
    console.log(`${row.graph}: ${row.vectors} vectors, ${largest}`);
  }
  console.log(`largest difference ${scientific(difference)}`);
  return passed ? 0 : 1;
}

try {
  process.exitCode = await main(...process.argv.slice(2));
} catch (error) {
  console.error(`replay: ${error.message}`);
  process.exitCode = 2;
}
