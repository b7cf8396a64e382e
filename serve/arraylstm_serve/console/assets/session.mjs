// The strip on top: the session, its step and state, its end; the API key; and whether the server answers.

/** @import { State } from "./types.mjs" */
/** @import { Actions } from "./actions.mjs" */
/** @import { Store } from "./store.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { whole } from "./format.mjs";

const STATUS = {
  connecting: "Connecting…",
  live: "Live",
  draining: "Stopping",
  gone: "No answer",
  locked: "Key needed",
  failing: "Trouble",
};
const STANDING = {
  "": "not begun",
  sought: "not known",
  held: "held",
  new: "new",
  continued: "continued",
  restored: "restored",
};

/** @param {Store} store @param {Actions} actions */
export function session(store, actions) {
  listen(actions);
  const views = [
    view(({ status }) => [status], drawStatus),
    view(({ name }) => [name], drawName),
    view(({ session, busy }) => [session, busy], drawPlace),
    view(
      ({ session: { id }, recent }) => [id, recent],
      (state) => drawRecent(state, actions),
    ),
    view(({ asksKey, keyed }) => [asksKey, keyed], drawKey),
  ];
  return (/** @type {State} */ state) => views.forEach((draw) => draw(state));
}

/** @param {Actions} actions */
function listen(actions) {
  find("#open").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    actions.open(find("#session-id").value);
  });
  find("#session-id").addEventListener("input", () => actions.name(find("#session-id").value));
  find("#fresh").addEventListener("click", () => actions.fresh());
  find("#end").addEventListener("click", actions.end);
  find("#key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    actions.useKey(find("#key-text").value.trim());
    find("#key-text").value = "";
    find("#key").open = false;
  });
}

/** @param {State} state */
function drawStatus({ status }) {
  find("#status").dataset.status = status;
  write(find("#status span"), STATUS[status]);
}

/** @param {State} state */
function drawName({ name }) {
  if (find("#session-id").value !== name) find("#session-id").value = name;
}

/** @param {State} state */
function drawPlace({ session: { step, standing }, busy }) {
  write(find("#step"), whole(step));
  write(find("#standing"), STANDING[standing]);
  find("#standing").dataset.standing = standing;
  find("#end").disabled = busy || !standing;
  find("main").ariaBusy = String(busy);
}

/** @param {State} state @param {Actions} actions */
function drawRecent({ session: { id }, recent }, actions) {
  find("#recent .hint").hidden = recent.length > 0;
  const create = () => make("li", {}, make("button", { type: "button", className: "chip code" }));
  fill(find("#recent ul"), recent, create, (child, name) => {
    const [button] = child.children;
    write(button, name);
    button.ariaCurrent = String(name === id);
    button.onclick = () => actions.open(name);
  });
}

/** @param {State} state */
function drawKey({ asksKey, keyed }) {
  find("#key-set").hidden = !keyed;
  if (!asksKey) return;
  find("#key").open = true;
  find("#key-text").focus();
}
