// Random names and keys.

const HOW =
  "amber bold brisk calm clear deft early fair gentle keen light lucid mild noble plain quiet rapid still vivid";
const WHAT =
  "ash beech brook cedar cove dune elm fern field glen grove heath lark maple otter pine reed shore stone wren";

/** @param {string} words @param {number} number */
function pick(words, number) {
  const all = words.split(" ");
  return all[number % all.length];
}

/** A fresh session id to suggest. */
export function suggestId() {
  const [how, what, number] = crypto.getRandomValues(new Uint32Array(3));
  return `${pick(HOW, how)}-${pick(WHAT, what)}-${1000 + (number % 9000)}`;
}

/** A key that no other request has: 128 random bits. */
export function uniqueKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
