// The server's API, as this page uses it.

/** @import { Answer, Item, Manifest, Stats } from "./types.mjs" */
import { parseJson, toJson } from "./items.mjs";

const PATIENCE = 30_000; // milliseconds

/** A refusal: a problem of RFC 9457. */
export class Refusal extends Error {
  /** @param {{title: string, detail: string, code: string, status: number}} problem */
  constructor({ title, detail, code, status }) {
    super(detail);
    Object.assign(this, { title, code, status });
    this.title = title;
    this.code = code;
    this.status = status;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

export class Api {
  /** @param {() => string} key The current API key, empty for none. */
  constructor(key) {
    this.key = key;
  }

  /** @returns {Promise<Stats>} */
  stats() {
    return this.#json("GET", "v1/stats");
  }

  /** @returns {Promise<Manifest>} */
  model() {
    return this.#json("GET", "v1/model");
  }

  /** @returns {Promise<{labels: Item[] | null}>} */
  vocabulary() {
    return this.#json("GET", "v1/vocabulary");
  }

  /** @param {string} id @returns {Promise<{step: number, recent?: Item[]}>} */
  info(id) {
    return this.#json("GET", `v1/sessions/${encodeURIComponent(id)}`);
  }

  /** @param {string} id @param {number} topK @returns {Promise<Answer>} */
  peek(id, topK) {
    return this.#json("GET", `v1/sessions/${encodeURIComponent(id)}/predictions?top_k=${topK}`);
  }

  /**
   * @param {string} id
   * @param {object} body
   * @param {string} once The idempotency key.
   * @returns {Promise<Answer>}
   */
  advance(id, body, once) {
    return this.#json("POST", `v1/sessions/${encodeURIComponent(id)}/events`, toJson(body), {
      "Idempotency-Key": once,
    });
  }

  /** @param {string} id */
  async remove(id) {
    await this.#ask("DELETE", `v1/sessions/${encodeURIComponent(id)}`);
  }

  /** @param {string} id @returns {Promise<ArrayBuffer>} */
  async state(id) {
    return (await this.#ask("GET", `v1/sessions/${encodeURIComponent(id)}/state`)).arrayBuffer();
  }

  /** @param {string} id @param {ArrayBuffer} file */
  async restore(id, file) {
    await this.#ask("PUT", `v1/sessions/${encodeURIComponent(id)}/state`, file, {
      "Content-Type": "application/octet-stream",
    });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string} [body]
   * @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  async #json(method, path, body, headers) {
    const response = await this.#ask(method, path, body, {
      ...headers,
      ...(body && { "Content-Type": "application/json" }),
    });
    return parseJson(await response.text().catch(unreachable));
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string | ArrayBuffer} [body]
   * @param {Record<string, string>} [headers]
   */
  async #ask(method, path, body, headers = {}) {
    const authorization = this.key() && { Authorization: `Bearer ${this.key()}` };
    const response = await fetch(new URL(path, location.origin + location.pathname), {
      method,
      body,
      headers: { ...headers, ...authorization },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    }).catch(unreachable);
    if (!response.ok) throw new Refusal(await problemOf(response));
    return response;
  }
}

/** @param {Error} error @returns {never} */
function unreachable(error) {
  throw new Unreachable(
    error.name === "TimeoutError" ? `It has not answered for ${PATIENCE / 1000} seconds.` : "It cannot be reached.",
  );
}

/** @param {Response} response */
async function problemOf(response) {
  const { status } = response;
  if (response.headers.get("content-type")?.startsWith("application/problem+json")) return response.json();
  return {
    title: `The answer was ${status}`,
    detail: "It did not come from arraylstm-serve: is there a proxy in front of it?",
    code: String(status),
    status,
  };
}
