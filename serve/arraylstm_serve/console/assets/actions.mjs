// What a visitor can do. Every action changes the store's state; none touches the page.

/** @import { Answer, Item, Moment, Notice, Session, State } from "./types.mjs" */
/** @import { Api } from "./api.mjs" */
/** @import { Store } from "./store.mjs" */
import { Refusal, Unreachable } from "./api.mjs";
import { advance, NOTHING } from "./figures.mjs";
import { keyOf, read } from "./items.mjs";
import { suggestId, uniqueKey } from "./names.mjs";
import { beginning, extend, readSnapshot } from "./snapshot.mjs";
import { keepKey, rememberId } from "./storage.mjs";
import { inWords, troubleOf, unheld, Unsent } from "./trouble.mjs";

const NUMBERS = 1000; // ids to suggest, of a model whose items have no labels

/** @param {string} id @param {Session["standing"]} [standing] @returns {Session} */
export function unbegun(id, standing = "") {
  return { id, step: 0, standing, history: [], predictions: [], now: null, before: null, reach: {} };
}

export class Actions {
  /** @type {{id: string, body: object, once: string} | null} A request that was sent and is not answered. */
  #unanswered = null;

  /** @param {Store} store @param {Api} api */
  constructor(store, api) {
    this.store = store;
    this.api = api;
  }

  get #session() {
    return this.store.state.session;
  }

  // -- the session ----------------------------------------------------------------------------------------------------

  /** A session under a name that nobody has used: there is nothing to ask the server for. */
  fresh = (id = suggestId()) => {
    if (!this.store.state.busy) this.#begin(unbegun(id));
  };

  /** The name in the field, which is not opened yet. @param {string} name */
  name = (name) => this.store.change({ name });

  /** The session of that name, wherever it stands. @param {string} id */
  open = (id) => this.#act(() => this.#enter(id));

  /** Send what was queued and typed, to the session that is named. */
  send = async () => {
    const { name, session } = this.store.state;
    if (name !== session.id) await this.open(name);
    this.#send(this.#drafted(), { queue: [], text: "", active: -1, suggests: false });
  };

  /** Take a prediction at its word. @param {Item} item */
  take = (item) => this.#send([item], {});

  /** Forget the session on the server; from here it can be given back. */
  end = () =>
    this.#act(async () => {
      const { id, now } = this.#session;
      await this.api.remove(id);
      this.#begin(unbegun(suggestId()));
      const undo = now && { label: "Undo", action: () => this.#restore(id, now.file) };
      this.#tell({ title: `Session ${id} has ended`, detail: "The server no longer holds its state.", ...undo });
    });

  /** @param {string} id @param {ArrayBuffer} file */
  #restore = (id, file) =>
    this.#act(async () => {
      await this.api.restore(id, file);
      await this.#enter(id);
    });

  /** @param {number} topK */
  setTopK = (topK) => {
    this.store.change({ topK });
    if (this.#session.standing) this.#act(() => this.#look());
  };

  // -- the draft ------------------------------------------------------------------------------------------------------

  /** Put an item in the queue and go on typing. @param {Item | undefined} [item] */
  add = (item = this.#typed()) => {
    if (item === undefined) return;
    this.store.change({ queue: [...this.store.state.queue, item], text: "", active: -1, suggests: false });
  };

  /** Put every line in the queue. @param {string[]} lines */
  paste = (lines) => {
    const { kind, known, queue } = this.store.state;
    const items = lines.flatMap((line) => read(line, kind, known) ?? []);
    this.store.change({ queue: [...queue, ...items] });
  };

  /** @param {number} index */
  drop = (index) => this.store.change({ queue: this.store.state.queue.filter((_, other) => other !== index) });

  /** Read digits as the other type, from now on. */
  flip = () => this.store.change({ kind: typeof this.#typed() === "string" ? "number" : "text" });

  #typed() {
    const { text, kind, known } = this.store.state;
    return read(text, kind, known);
  }

  #drafted() {
    const typed = this.#typed();
    return typed === undefined ? this.store.state.queue : [...this.store.state.queue, typed];
  }

  // -- the server -----------------------------------------------------------------------------------------------------

  /** Get to know the model, and its items by name. */
  async #meet() {
    const [model, { labels }] = await Promise.all([this.api.model(), this.api.vocabulary()]);
    this.store.change({ model, known: new Map() });
    this.#hear(labels ?? Array.from({ length: Math.min(model.model.num_items, NUMBERS) }, (_, id) => id));
  }

  /** Ask for the figures; they also say whether the server is there, and whether its model is another one. */
  watch = async () => {
    try {
      const stats = await this.api.stats();
      const { status, model, series } = this.store.state;
      const stayed = status === "live" || status === "draining";
      const next = advance(stayed ? series : NOTHING, stats);
      this.store.change({ status: stats.draining ? "draining" : "live", series: next });
      if (model?.fingerprint !== stats.model) await this.#meet();
      if (!stayed) this.#resume();
    } catch (error) {
      const trouble = troubleOf(error) ?? "failing";
      const known = trouble === this.store.state.status; // and told: once is enough
      this.store.change({ status: trouble, asksKey: trouble === "locked" });
      if (!known) this.#explain(error);
    }
  };

  /** @param {string} key */
  useKey = (key) => {
    keepKey(key);
    this.store.change({ keyed: Boolean(key), asksKey: false, notice: null, status: "connecting" });
    return this.watch();
  };

  dismiss = () => this.store.change({ notice: null });

  /** Go on where the session stands, now that the server answers again. */
  #resume() {
    if (this.#unanswered) return;
    this.#tell(null);
    const { id, step, standing } = this.#session;
    if (!standing) return;
    this.#act(async () => {
      const info = await this.api.info(id);
      if (info.step !== step || standing === "sought") await this.#enter(id);
    });
  }

  // -- parts ----------------------------------------------------------------------------------------------------------

  /** @param {Session} session */
  #begin(session) {
    this.#unanswered = null;
    this.store.change({ session, name: session.id, chosen: null, notice: null });
    if (!session.standing) history.replaceState(null, "", location.pathname + location.search);
  }

  /** @param {string} id */
  async #enter(id) {
    this.#begin(unbegun(id, "sought"));
    const info = await this.api.info(id).catch(unheld);
    if (!info) return this.#begin(unbegun(id));
    this.#remember(id);
    this.#change({ step: info.step, standing: "held", history: heard(info) });
    this.#hear(info.recent ?? []);
    await this.#look();
    await this.#draw();
  }

  /** @param {Item[]} items @param {Partial<State>} then */
  #send(items, then) {
    if (!items.length || this.store.state.busy) return;
    const { session, topK } = this.store.state;
    this.#unanswered = { id: session.id, body: { items, top_k: topK, expected_step: session.step }, once: uniqueKey() };
    this.#deliver(then);
  }

  /**
   * Send what is unanswered. A second time it has the same key: it is applied once, whichever of them arrived.
   * @param {Partial<State>} then
   */
  #deliver(then) {
    return this.#act(async () => {
      if (!this.#unanswered) return;
      const { id, body, once } = this.#unanswered;
      const answer = await this.api.advance(id, body, once).catch((error) => {
        if (error instanceof Unreachable) throw new Unsent(error.message, () => this.#deliver(then));
        this.#unanswered = null;
        throw error;
      });
      this.#unanswered = null;
      this.store.change({ ...then, chosen: null });
      this.#remember(id);
      this.#take(answer);
      await this.#draw();
      });
  }

  /** @param {Answer} answer */
  #take({ step, state, predictions, observed }) {
    const begin = step - observed.length;
    const moments = observed.map((each, index) => ({ ...each, step: begin + index + 1, seen: true }));
    this.#change({ step, standing: state, predictions, history: [...this.#session.history, ...moments] });
    this.#hear([...observed, ...predictions].map(({ item }) => item));
  }

  /** Fetch the predictions. */
  async #look() {
    const { step, predictions } = await this.api.peek(this.#session.id, this.store.state.topK);
    this.#change({ step, predictions });
    this.#hear(predictions.map(({ item }) => item));
  }

  /** Fetch the hidden state. */
  async #draw() {
    const now = readSnapshot(await this.api.state(this.#session.id));
    const { now: last, history, reach } = this.#session;
    const before = last ?? (history[0]?.step === 1 && history[0].seen ? beginning(now) : null);
    this.#change({ now, before, reach: extend(reach, now, before) });
  }

  /** @param {Item[]} items */
  #hear(items) {
    const { known } = this.store.state;
    const unheard = items.filter((item) => !known.has(keyOf(item)));
    if (!unheard.length) return;
    const next = new Map(known);
    for (const item of unheard) next.set(keyOf(item), item);
    this.store.change({ known: next });
  }

  /** @param {string} id */
  #remember(id) {
    this.store.change({ recent: rememberId(id) });
    history.replaceState(null, "", `#${id}`);
  }

  /** @param {Partial<Session>} changes */
  #change(changes) {
    this.store.change({ session: { ...this.#session, ...changes } });
  }

  /** Do one thing at a time; what goes wrong is told. @param {() => Promise<unknown>} work */
  async #act(work) {
    if (this.store.state.busy) return;
    this.store.change({ busy: true, notice: null });
    try {
      await work();
    } catch (error) {
      this.#explain(error);
    } finally {
      this.store.change({ busy: false });
    }
  }

  // -- what went wrong ------------------------------------------------------------------------------------------------

  /** @param {Notice | null} notice */
  #tell(notice) {
    this.store.change({ notice });
  }

  /** @param {unknown} error */
  #explain(error) {
    const trouble = troubleOf(error);
    if (trouble) this.store.change({ status: trouble, asksKey: trouble === "locked" });
    this.#tell({ ...inWords(error), ...this.#remedy(error) });
  }

  /** What helps, if anything does. @param {unknown} error @returns {Partial<Notice>} */
  #remedy(error) {
    const { id } = this.#session;
    if (error instanceof Unsent) return { label: "Send again", action: error.again };
    if (!(error instanceof Refusal)) return {};
    if (error.code === "step_conflict") return { label: "Show where it stands", action: () => this.open(id) };
    if (["session_gone", "unknown_session"].includes(error.code))
      return { label: "Begin it anew", action: () => this.fresh(id) };
    return {};
  }
}

/**
 * What a session consumed before this page came.
 * @param {{step: number, recent?: Item[]}} info
 * @returns {Moment[]}
 */
function heard({ step, recent = [] }) {
  const begin = step - recent.length;
  return recent.map((item, index) => ({ item, step: begin + index + 1, probability: null, rank: null, seen: false }));
}
