// The types of what the modules pass to each other.

/** @typedef {string | number | bigint} Item A label, or an id if the model has no labels; 5 and "5" may be two items. */
/** @typedef {{item: Item, probability: number}} Prediction */
/** @typedef {{item: Item, probability: number | null, rank: number | null, unknown?: boolean}} Observation */
/** @typedef {{shape: number[], data: Float32Array}} Tensor */

/**
 * @typedef {object} Answer A SessionAnswer of the API.
 * @property {string} session_id
 * @property {number} step
 * @property {"new" | "continued" | "restored"} state
 * @property {Prediction[]} predictions
 * @property {Observation[]} observed
 */

/**
 * @typedef {object} Moment One item that the session has consumed.
 * @property {number} step
 * @property {Item} item
 * @property {number | null} probability What the model gave the item; null for a session's first.
 * @property {number | null} rank
 * @property {boolean} [unknown] Whether the model has no such label, so that it took its unknown item.
 * @property {boolean} seen Whether it was sent while this page was open; earlier items have only names.
 */

/**
 * @typedef {object} Session
 * @property {string} id
 * @property {number} step
 * @property {"" | "sought" | "held" | "new" | "continued" | "restored"} standing "" if the server does not have it.
 * @property {Moment[]} history
 * @property {Prediction[]} predictions
 * @property {Snapshot | null} now
 * @property {Snapshot | null} before What `now` was before the last items.
 * @property {Record<string, number>} reach For each tensor and mode, the largest distance from zero so far.
 */

/** @typedef {{step: number, tensors: Record<string, Tensor>, file: ArrayBuffer}} Snapshot */

/**
 * @typedef {object} Stats An answer of GET /v1/stats.
 * @property {number} uptime_seconds
 * @property {number} sessions
 * @property {number} max_sessions
 * @property {number} pending
 * @property {boolean} draining
 * @property {number} events_total
 * @property {number} requests_total
 * @property {number} batches_total
 * @property {number} steps_total
 * @property {number} busy_seconds_total
 * @property {number} replays_total
 * @property {number} conflicts_total
 * @property {number} unknown_items_total
 * @property {{expired: number, room: number, answers: number}} evicted
 * @property {string} model
 * @property {string} provider
 * @property {string} version
 */

/**
 * @typedef {object} Manifest An answer of GET /v1/model, as far as the page reads it.
 * @property {string} fingerprint
 * @property {Record<string, any> & {cell: string, num_items: number}} model
 * @property {{name: string, shape: number[]}[]} states
 * @property {string} [precision]
 * @property {number} [opset]
 * @property {{allowed: number, reached: number}} [tolerance]
 */

/** @typedef {{title: string, detail: string, code?: string, label?: string, action?: () => void}} Notice */
/** @typedef {"auto" | "text" | "number"} Kind How typed digits are read. */

/**
 * @typedef {object} State Everything that the page shows.
 * @property {"connecting" | "live" | "draining" | "gone" | "locked" | "failing"} status
 * @property {boolean} busy
 * @property {boolean} keyed Whether there is an API key to send.
 * @property {boolean} asksKey
 * @property {Manifest | null} model
 * @property {Session} session
 * @property {string} name The text in the session's field; another name is a session to open.
 * @property {string[]} recent
 * @property {Map<string, Item>} known Known items, by type and value.
 * @property {Item[]} queue
 * @property {string} text
 * @property {Kind} kind
 * @property {number} active The suggestion under the cursor, -1 for none.
 * @property {boolean} suggests
 * @property {number} topK
 * @property {number | null} chosen The step that the visitor points at.
 * @property {"values" | "change"} mode
 * @property {import("./figures.mjs").Series} series
 * @property {Notice | null} notice
 */

export {};
