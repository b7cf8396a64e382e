// What the visitor must know now, shown over the bottom of the page so that nothing moves.

/** @import { State } from "./types.mjs" */
/** @import { Actions } from "./actions.mjs" */
/** @import { Store } from "./store.mjs" */
import { find, make, view } from "./dom.mjs";

/** @param {Store} store @param {Actions} actions */
export function notice(store, actions) {
  return view(
    ({ notice }) => [notice],
    (state) => draw(state, actions),
  );
}

/** @param {State} state @param {Actions} actions */
function draw({ notice }, actions) {
  find("#notice").replaceChildren(...(notice ? [card(notice, actions)] : []));
}

/** @param {import("./types.mjs").Notice} notice @param {Actions} actions */
function card({ title, detail, code, label, action }, actions) {
  const text = make("div", {}, make("b", {}, title), make("p", {}, detail));
  if (code) text.append(make("code", {}, code));
  const buttons = make("div", { className: "buttons" });
  if (label) buttons.append(make("button", { type: "button", onclick: action }, label));
  buttons.append(make("button", { type: "button", className: "quiet", onclick: actions.dismiss }, "Close"));
  return make("div", { className: "card" }, text, buttons);
}
