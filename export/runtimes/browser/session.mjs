// One session: what was observed, the state after each item, and what the model now expects.

export class Session {
  constructor(model) {
    this.model = model;
    this.reset();
  }

  reset() {
    this.moments = [{ state: this.model.start() }];
    this.scores = undefined; // nothing is expected before a first item
  }

  /** The items so far: `id`, and `observed`, how likely the model had held it (undefined for the first). */
  get history() {
    return this.moments.slice(1);
  }

  get state() {
    return this.moments.at(-1).state;
  }

  async observe(id) {
    await this.#move(id, this.scores && this.model.observe(this.scores, id));
  }

  /** Take the last item back: the one before it is stepped once more, as only the latest scores are kept. */
  async undo() {
    const [before] = this.moments.splice(-2);
    if (this.moments.length) await this.#move(before.id, before.observed);
    else this.reset();
  }

  async #move(id, observed) {
    const { state, scores } = await this.model.step(this.state, [id]);
    this.moments.push({ id, observed, state });
    this.scores = scores[0];
  }
}
