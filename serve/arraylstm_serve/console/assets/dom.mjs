// Elements. Text enters the page as text, never as HTML, because anybody may choose a label.

/** @param {string} selector @returns {any} */
export const find = (selector) => document.querySelector(selector);

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {(Node | string)[]} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Set an element's text if it is a new one, so that screen readers do not read the same text again.
 * @param {Element} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Give a parent one child for each value. Children stay in their places, so that focus and transitions survive.
 * @template T
 * @param {Element} parent
 * @param {T[]} values
 * @param {() => Element} create
 * @param {(child: any, value: T, index: number) => void} update
 */
export function fill(parent, values, create, update) {
  while (parent.children.length > values.length) parent.lastElementChild?.remove();
  values.forEach((value, index) => {
    const child = parent.children[index] ?? parent.appendChild(create());
    update(child, value, index);
  });
}

/**
 * A view that is drawn only if something it depends on has changed.
 * @template S
 * @param {(state: S) => unknown[]} pick
 * @param {(state: S) => void} draw
 */
export function view(pick, draw) {
  /** @type {unknown[]} */
  let last = [];
  return (/** @type {S} */ state) => {
    const seen = pick(state);
    if (seen.length === last.length && seen.every((value, index) => Object.is(value, last[index]))) return;
    last = seen;
    draw(state);
  };
}
