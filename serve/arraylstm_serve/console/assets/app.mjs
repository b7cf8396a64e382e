// The page: one state, drawn by the views, changed by the actions; and the clock that fetches the server's figures.

/** @import { State } from "./types.mjs" */
import { Actions, unbegun } from "./actions.mjs";
import { Api } from "./api.mjs";
import { NOTHING } from "./figures.mjs";
import { suggestId } from "./names.mjs";
import { readKey, recentIds } from "./storage.mjs";
import { Store } from "./store.mjs";
import { composer } from "./composer.mjs";
import { model } from "./model.mjs";
import { notice } from "./notice.mjs";
import { predictions } from "./predictions.mjs";
import { server } from "./server.mjs";
import { session } from "./session.mjs";
import { states } from "./states.mjs";
import { surprise } from "./surprise.mjs";

const SECOND = 1000;
const begun = unbegun(suggestId());

/** @type {State} */
const initial = {
  status: "connecting",
  busy: false,
  keyed: Boolean(readKey()),
  asksKey: false,
  model: null,
  session: begun,
  name: begun.id,
  recent: recentIds(),
  known: new Map(),
  queue: [],
  text: "",
  kind: "auto",
  active: -1,
  suggests: false,
  topK: 10,
  chosen: null,
  mode: "values",
  series: NOTHING,
  notice: null,
};

const store = new Store(initial);
const actions = new Actions(store, new Api(readKey));
const views = [session, composer, predictions, surprise, states, server, model, notice];
store.show(...views.map((view) => view(store, actions)));

function openNamed() {
  const id = location.hash.slice(1);
  if (id && id !== store.state.session.id) actions.open(id);
}

async function watch() {
  if (!document.hidden) await actions.watch();
  setTimeout(watch, store.state.status === "live" ? SECOND : 2 * SECOND);
}

addEventListener("hashchange", openNamed);
await actions.watch();
openNamed();
setTimeout(watch, SECOND);
