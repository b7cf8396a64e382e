// The page's one state: actions change it, and every change is drawn once, from top to bottom.

/** @import { State } from "./types.mjs" */

export class Store {
  #draws = /** @type {((state: State) => void)[]} */ ([]);
  #waiting = false;

  /** @param {State} state */
  constructor(state) {
    this.state = state;
  }

  /** Draw now and after every change. @param {((state: State) => void)[]} draws */
  show(...draws) {
    this.#draws = draws;
    this.change({});
  }

  /** @param {Partial<State>} changes */
  change = (changes) => {
    this.state = { ...this.state, ...changes };
    if (this.#waiting) return;
    this.#waiting = true;
    queueMicrotask(() => {
      this.#waiting = false;
      for (const draw of this.#draws) draw(this.state);
    });
  };
}
