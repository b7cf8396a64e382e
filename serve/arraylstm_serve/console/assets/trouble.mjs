// What can go wrong, and the notice about it.

/** @import { Notice } from "./types.mjs" */
import { Refusal, Unreachable } from "./api.mjs";

/** A request that was not answered, and how to send it again. */
export class Unsent extends Unreachable {
  /** @param {string} message @param {() => void} again */
  constructor(message, again) {
    super(message);
    this.again = again;
  }
}

/** @param {unknown} error @returns {Notice} */
export function inWords(error) {
  if (error instanceof Unsent) {
    return {
      title: "What you sent was not answered",
      detail: `${error.message} Send it again: it is applied only once, even if it had arrived.`,
    };
  }
  if (error instanceof Unreachable) {
    return { title: "The server does not answer", detail: `${error.message} This page keeps asking.` };
  }
  if (error instanceof Refusal) return { title: error.title, detail: error.message, code: error.code };
  return { title: "The answer cannot be shown", detail: String(error) };
}

/** What an error says about the server. @param {unknown} error @returns {"gone" | "locked" | null} */
export function troubleOf(error) {
  if (error instanceof Unreachable) return "gone";
  return error instanceof Refusal && error.code === "unauthorized" ? "locked" : null;
}

/** An unknown session is not a failure. @param {unknown} error */
export function unheld(error) {
  if (error instanceof Refusal && error.code === "unknown_session") return null;
  throw error;
}
