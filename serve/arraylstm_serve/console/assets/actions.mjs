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
  /** @type {{id: string, body: object, once: string} | null} The request that was sent and is not answered yet. */
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

  /** Open a session with an unused name; the server knows nothing about it. */
  fresh = (id = suggestId()) => {
    if (!this.store.state.busy) this.#begin(unbegun(id));
  };

  /** Take the name in the field; it is not opened yet. @param {string} name */
  name = (name) => this.store.change({ name });

  /** Open the session of that name, at whatever step it is. @param {string} id */
  open = (id) => this.#act(() => this.#enter(id));

  /** Send the queued and the typed items to the named session. */
  send = async () => {
    const { name, session } = this.store.state;
    if (name !== session.id) await this.open(name);
    this.#send(this.#drafted(), { queue: [], text: "", active: -1, suggests: false });
  };

  /** Send a predicted item. @param {Item} item */
  take = (item) => this.#send([item], {});

  /** Delete the session on the server; this page can restore it. */
  end = () =>
    this.#act(async () => {
      const { id, now } = this.#session;
      await this.api.remove(id);
      this.#begin(unbegun(suggestId()));
      const undo = now && { label: "Undo", action: () => this.#restore(id, now.file) };
      this.#tell({ title: `Session ${id} has ended`, detail: "The server no longer has its state.", ...undo });
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

  /** From now on read digits as the other type. */
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

  /** Fetch the model and the names of its items. */
  async #meet() {
    const [model, { labels }] = await Promise.all([this.api.model(), this.api.vocabulary()]);
    this.store.change({ model, known: new Map() });
    this.#hear(labels ?? Array.from({ length: Math.min(model.model.num_items, NUMBERS) }, (_, id) => id));
  }

  /** Fetch the figures. They also show whether the server answers, and whether its model has changed. */
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
      const known = trouble === this.store.state.status; // and shown already
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

  /** Continue at the session's step, now that the server answers again. */
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
   * Send the unanswered request. A second try has the same key, so it is applied only once.
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
    this.#hear([...observed.filter(({ unknown }) => !unknown), ...predictions].map(({ item }) => item));
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

  /** Do one thing at a time, and show what goes wrong. @param {() => Promise<unknown>} work */
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

  /** The action that helps, if there is one. @param {unknown} error @returns {Partial<Notice>} */
  #remedy(error) {
    const { id } = this.#session;
    if (error instanceof Unsent) return { label: "Send again", action: error.again };
    if (!(error instanceof Refusal)) return {};
    if (error.code === "step_conflict") return { label: "Show its step", action: () => this.open(id) };
    if (["session_gone", "unknown_session"].includes(error.code))
      return { label: "Start it again", action: () => this.fresh(id) };
    return {};
  }
}

/**
 * What a session consumed before this page was opened.
 * @param {{step: number, recent?: Item[]}} info
 * @returns {Moment[]}
 */
function heard({ step, recent = [] }) {
  const begin = step - recent.length;
  return recent.map((item, index) => ({ item, step: begin + index + 1, probability: null, rank: null, seen: false }));
}
