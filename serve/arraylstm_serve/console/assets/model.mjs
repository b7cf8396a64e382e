// The model served.

/** @import { Manifest, State } from "./types.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { counted, whole } from "./format.mjs";

const SHORT = 15; // "sha256:" and eight digits
/** @type {Record<string, string>} */
const WORDS = {
  num_items: "items",
  hidden_size: "hidden size",
  embedding_size: "embedding",
  num_layers: "layers",
  k: "lanes (k)",
};

export function model() {
  return view(({ model, status }) => [model, model ? "" : status], draw);
}

/** @param {State} state */
function draw({ model, status }) {
  write(
    find("#summary"),
    model ? summary(model.model) : status === "gone" ? "The server does not answer" : "Reading the model…",
  );
  fill(
    find("#facts"),
    model ? facts(model) : [],
    () => make("div", {}, make("dt"), make("dd")),
    (child, { name, value, title }) => {
      write(child.children[0], name);
      write(child.children[1], value);
      child.children[1].title = title ?? "";
    },
  );
}

/** @param {Manifest["model"]} model */
function summary({ cell, num_items, hidden_size, k }) {
  const lanes = k > 1 ? ` in ${counted(k, "lane")}` : "";
  return `${cell} cell, ${counted(num_items, "item")}${hidden_size ? `, ${counted(hidden_size, "unit")}${lanes}` : ""}`;
}

/** @param {Manifest} manifest @returns {{name: string, value: string, title?: string}[]} */
function facts({ model, states, precision, opset, tolerance, fingerprint }) {
  const sizes = Object.entries(model).map(([name, value]) => ({
    name: WORDS[name] ?? name.replaceAll("_", " "),
    value: worded(value),
  }));
  return [
    ...sizes,
    { name: "states", value: states.map(({ name, shape }) => `${name} ${shape.join("×")}`).join(", ") },
    ...(precision ? [{ name: "precision", value: precision }] : []),
    ...(opset ? [{ name: "ONNX opset", value: String(opset) }] : []),
    ...(tolerance
      ? [
          {
            name: "off PyTorch by",
            value: tolerance.reached.toExponential(1),
            title: `${tolerance.allowed} is allowed`,
          },
        ]
      : []),
    { name: "fingerprint", value: `${fingerprint.slice(0, SHORT)}…`, title: fingerprint },
  ];
}

/** @param {unknown} value */
function worded(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? whole(value) : String(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
