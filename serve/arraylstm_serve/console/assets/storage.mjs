// What the browser stores: session ids for good, the API key until the tab closes. Without storage nothing breaks.

const RECENT = "arraylstm.recent";
const KEY = "arraylstm.key";
const MOST = 8;

/** @template T @param {() => T} work @param {T} otherwise */
function allowed(work, otherwise) {
  try {
    return work();
  } catch {
    return otherwise; // storage is forbidden, full, or has data of another page
  }
}

/** @returns {string[]} */
export function recentIds() {
  const kept = allowed(() => JSON.parse(localStorage.getItem(RECENT) ?? "[]"), []);
  return Array.isArray(kept) ? kept.filter((id) => typeof id === "string").slice(0, MOST) : [];
}

/** Put an id first. @param {string} id */
export function rememberId(id) {
  const ids = [id, ...recentIds().filter((other) => other !== id)].slice(0, MOST);
  allowed(() => localStorage.setItem(RECENT, JSON.stringify(ids)), undefined);
  return ids;
}

export function readKey() {
  return allowed(() => sessionStorage.getItem(KEY), null) ?? "";
}

/** @param {string} key */
export function keepKey(key) {
  allowed(() => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)), undefined);
}
