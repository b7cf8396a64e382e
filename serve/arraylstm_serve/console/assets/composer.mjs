// Where items are entered: a field that suggests known items and says how it reads digits, and a queue for several.

/** @import { Item, State } from "./types.mjs" */
/** @import { Actions } from "./actions.mjs" */
/** @import { Store } from "./store.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { counted } from "./format.mjs";
import { isInteger, kindOf, read, show, suggest } from "./items.mjs";

/** @param {Store} store @param {Actions} actions */
export function composer(store, actions) {
  listen(store, actions);
  const views = [
    view(
      ({ queue }) => [queue],
      (state) => drawQueue(state, actions),
    ),
    view(({ text, kind, known }) => [text, kind, known], drawTyped),
    view(
      ({ text, known, active, suggests }) => [text, known, active, suggests],
      (state) => drawSuggestions(state, actions),
    ),
    view(({ text, queue, known, kind, session, name }) => [text, queue, known, kind, session, name], drawHint),
  ];
  return (/** @type {State} */ state) => views.forEach((draw) => draw(state));
}

// -- what the visitor does --------------------------------------------------------------------------------------------

/** @param {Store} store @param {Actions} actions */
function listen(store, actions) {
  const input = find("#item");
  input.addEventListener("input", () => store.change({ text: input.value, suggests: true, active: -1 }));
  input.addEventListener("blur", () => store.change({ suggests: false, active: -1 }));
  input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => pressed(event, store, actions));
  input.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => pasted(event, actions));
  find("#send").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    actions.send();
  });
  const add = () => {
    actions.add();
    input.focus();
  };
  find("#add").addEventListener("click", add);
  find("#kind").addEventListener("click", actions.flip);
}

/** @param {KeyboardEvent} event @param {Store} store @param {Actions} actions */
function pressed(event, { state, change }, actions) {
  const items = state.suggests ? suggest(state.text, state.known) : [];
  const chosen = items[state.active];
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowDown: () =>
      change({ suggests: true, active: Math.min(state.active + 1, suggest(state.text, state.known).length - 1) }),
    ArrowUp: () => change({ active: Math.max(state.active - 1, -1) }),
    Escape: () => change({ suggests: false, active: -1 }),
  };
  if (chosen !== undefined) keys.Enter = () => actions.add(chosen);
  else if (event.shiftKey) keys.Enter = () => actions.add();
  if (!state.text && state.queue.length) keys.Backspace = () => actions.drop(state.queue.length - 1);
  if (!keys[event.key] || event.isComposing) return;
  event.preventDefault();
  keys[event.key]();
}

/** Several lines are several items. @param {ClipboardEvent} event @param {Actions} actions */
function pasted(event, actions) {
  const lines = (event.clipboardData?.getData("text/plain") ?? "").split(/\r?\n/);
  if (lines.length < 2) return;
  event.preventDefault();
  actions.paste(lines);
}

// -- what is shown ----------------------------------------------------------------------------------------------------

/** @param {State} state @param {Actions} actions */
function drawQueue({ queue }, actions) {
  find("#queue").hidden = !queue.length;
  const create = () => make("li", {}, make("button", { type: "button", className: "chip" }));
  fill(find("#queue"), queue, create, (child, item, index) => {
    const [button] = child.children;
    write(button, show(item));
    button.dataset.kind = kindOf(item);
    button.title = `Sent as ${kindOf(item)}; click to remove it`;
    button.ariaLabel = `Remove ${show(item)}, ${kindOf(item)}`;
    button.onclick = () => actions.drop(index);
  });
}

/** @param {State} state */
function drawTyped({ text, kind, known }) {
  if (find("#item").value !== text) find("#item").value = text;
  const item = read(text, kind, known);
  const digits = isInteger(text.trim());
  const button = find("#kind");
  button.hidden = !digits;
  if (!digits || item === undefined) return;
  write(button, `as ${kindOf(item)}`);
  button.title = typeof item === "string" ? "Read digits as a number" : "Read digits as text";
}

/** @param {State} state @param {Actions} actions */
function drawSuggestions({ text, known, active, suggests }, actions) {
  const items = suggests ? suggest(text, known) : [];
  const input = find("#item");
  find("#suggestions").hidden = !items.length;
  input.ariaExpanded = String(items.length > 0);
  if (items[active] === undefined) input.removeAttribute("aria-activedescendant");
  else input.setAttribute("aria-activedescendant", `suggestion-${active}`);
  const mixed = new Set(items.map(kindOf)).size > 1;
  fill(find("#suggestions"), items, option, (child, item, index) => {
    child.id = `suggestion-${index}`;
    child.ariaSelected = String(index === active);
    write(child.children[0], show(item));
    write(child.children[1], mixed ? kindOf(item) : "");
    child.onmousedown = (/** @type {Event} */ event) => {
      event.preventDefault(); // the field keeps the focus
      actions.add(item);
    };
  });
}

function option() {
  return make("li", { role: "option" }, make("span", { className: "name" }), make("span", { className: "kind" }));
}

/** @param {State} state */
function drawHint({ text, queue, known, kind, session, name }) {
  const item = read(text, kind, known);
  const count = queue.length + (item === undefined ? 0 : 1);
  write(find("#go"), count > 1 ? `Send ${count}` : "Send");
  write(find("#send-hint"), count ? what(queue, item) + where(name, session.id) : how());
}

/** @param {Item[]} queue @param {Item | undefined} item */
function what(queue, item) {
  const items = item === undefined ? queue : [...queue, item];
  const [first] = items;
  return items.length === 1
    ? `Sends the ${kindOf(first)} ${show(first)}.`
    : `Sends ${counted(items.length, "item")}, oldest first.`;
}

/** @param {string} name @param {string} id */
function where(name, id) {
  return name === id ? "" : ` Opens ${name} first.`;
}

function how() {
  return "Enter sends, Shift+Enter adds one more.";
}
