// What the page does: it opens a bundle, and moves one session as its visitor says.

import { Model } from "arraylstm/model.mjs";
import { replay } from "arraylstm/vectors.mjs";
import * as ort from "onnxruntime-web";
import { Names } from "./names.mjs";
import { Session } from "./session.mjs";
import * as view from "./view.mjs";

ort.env.wasm.numThreads = 1; // more would need COOP and COEP headers of whoever serves the page

const query = new URLSearchParams(location.search);
const folder = new URL(`${query.get("bundle") || "bundle"}/`, location.href);

async function read(name) {
  const address = new URL(name, folder);
  const response = await fetch(address).catch((error) => {
    throw new Error(`${address} cannot be read: ${error.message}`);
  });
  if (!response.ok) throw new Error(`${address} cannot be read: the server answers ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

let last = Promise.resolve();

/** Do one thing after the other, however fast the visitor clicks; a problem is told and keeps nothing from going on. */
function inTurn(work) {
  last = last.then(async () => {
    view.showProblem("");
    await work();
  });
  last = last.catch((error) => view.showProblem(error.message));
  return last;
}

async function start() {
  const model = await Model.open(ort, read).catch((error) => {
    view.showNoModel();
    throw error;
  });
  const session = new Session(model);
  const names = new Names(model.labels);
  const show = () => view.showSession(session, names, move);
  const move = (id) => inTurn(() => session.observe(id).then(show));
  view.whenObserved((text) => inTurn(() => session.observe(names.id(text) ?? model.id(text)).then(show)));
  view.whenTyped((text) => view.suggest(names.like(text)));
  view.whenClicked("#undo", () => inTurn(() => session.undo().then(show)));
  view.whenClicked("#reset", () => inTurn(async () => show(session.reset())));
  view.whenClicked("#run-replay", replayVectors);
  view.showModel(model);
  view.suggest(names.like(""));
  show();
}

function replayVectors() {
  return inTurn(async () => view.showReplay(await replay(ort, read)));
}

await inTurn(start);
if (query.has("replay")) await replayVectors();
