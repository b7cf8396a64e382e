// What the page shows. Text enters it as text, never as HTML: labels are anybody's.

import { scientific } from "arraylstm/vectors.mjs";
import { drawStates } from "./heatmap.mjs";

const TOP = 10;
const SHOWN_HISTORY = 200;
const find = (selector) => document.querySelector(selector);
const percent = new Intl.NumberFormat("en", {
  style: "percent",
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
});
const whole = new Intl.NumberFormat("en");

export function showModel({ manifest: { model }, numItems }) {
  const facts = `${model.cell} cell, ${whole.format(numItems)} ${numItems === 1 ? "item" : "items"}`;
  find("#summary").textContent = `Model: ${facts}. It runs in this page; what you enter stays here.`;
  find("#controls").disabled = false;
  find("#run-replay").disabled = false;
}

export function showNoModel() {
  find("#summary").textContent = "There is no model to show.";
}

export function showProblem(sentence) {
  find("#problem").textContent = sentence;
}

/** Show a session; `move(id)` is called when a prediction is taken at its word. */
export function showSession(session, names, move) {
  const { model, scores, history, state } = session;
  find("#undo").disabled = find("#reset").disabled = history.length === 0;
  find("#observed").textContent = history.length ? surpriseOf(history.at(-1), names, model.numItems) : "";
  const best = scores ? model.top(scores, Math.min(TOP, model.numItems)) : [];
  find("#predictions").replaceChildren(...best.map((prediction) => bar(prediction, names, move)));
  find("#history").start = Math.max(0, history.length - SHOWN_HISTORY) + 1;
  find("#history").replaceChildren(
    ...history.slice(-SHOWN_HISTORY).map((moment) => chip(moment, names, model.numItems)),
  );
  drawStates(find("#states"), state);
}

export function suggest(names) {
  find("#items").replaceChildren(...names.map((name) => element("option", { value: name })));
}

export function showReplay({ rows, difference, allowed, passed }) {
  const cells = ({ graph, vectors, difference: largest, where }) => [graph, vectors, scientific(largest), where];
  const row = (values) => element("tr", {}, ...values.map((value) => element("td", {}, value)));
  find("#replay tbody").replaceChildren(...rows.map((each) => row(cells(each))));
  find("#replay table").hidden = false;
  find("#verdict").className = passed ? "passed" : "failed";
  find("#verdict").textContent =
    `largest difference ${scientific(difference)}, ${passed ? "within" : "beyond"} the ${scientific(allowed)} allowed`;
}

// -- what the visitor does ------------------------------------------------------------------------------------------

export function whenObserved(act) {
  find("#observe").addEventListener("submit", (event) => {
    event.preventDefault();
    act(find("#item").value);
    find("#item").value = "";
    find("#item").dispatchEvent(new Event("input"));
  });
}

export function whenTyped(act) {
  find("#item").addEventListener("input", (event) => act(event.target.value));
}

export function whenClicked(button, act) {
  find(button).addEventListener("click", act);
}

// -- parts ----------------------------------------------------------------------------------------------------------

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function bar({ id, probability }, names, move) {
  const button = element(
    "button",
    { type: "button", onclick: () => move(id), title: "Observe this item" },
    element("span", { className: "name" }, names.of(id)),
    element("span", { className: "probability" }, percent.format(probability)),
  );
  button.style.setProperty("--share", probability);
  return element("li", {}, button);
}

function chip(moment, names, numItems) {
  const item = element("li", { title: surpriseOf(moment, names, numItems) }, names.of(moment.id));
  const bits = moment.observed ? -Math.log2(moment.observed.probability) : 0;
  item.style.setProperty("--surprise", Math.min(1, bits / (2 * Math.log2(Math.max(2, numItems)))));
  return item;
}

function surpriseOf({ id, observed }, names, numItems) {
  if (!observed) return `${names.of(id)}: the first item; nothing was expected before it`;
  const { probability, rank } = observed;
  const bits = Math.abs(Math.log2(probability)).toFixed(1);
  return `${names.of(id)}: held ${percent.format(probability)} likely, rank ${rank} of ${whole.format(numItems)}, a surprise of ${bits} bits`;
}
