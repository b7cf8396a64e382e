// What the visitor reads and types for the model's labels, which may be numbers, blank, or differ from another by type alone.

const SUGGESTIONS = 50;

export class Names {
  constructor(labels) {
    const numbers = new Set(labels.filter((label) => typeof label === "number").map(String));
    const plain = (label) => typeof label === "number" || (label.trim() && !numbers.has(label));
    this.names = labels.map((label) => (plain(label) ? String(label) : JSON.stringify(label)));
    this.ids = new Map(this.names.map((name, id) => [name, id]));
  }

  /** The name of an id. */
  of(id) {
    return this.names[id];
  }

  /** The id of a name, undefined where there is none. */
  id(name) {
    return this.ids.get(name);
  }

  /** Some names that hold the text, whatever its case: a list that even a vocabulary of 100,000 keeps short. */
  like(text) {
    const found = [];
    const wanted = text.toLowerCase();
    for (const name of this.names) {
      if (name.toLowerCase().includes(wanted)) found.push(name);
      if (found.length === SUGGESTIONS) break;
    }
    return found;
  }
}
