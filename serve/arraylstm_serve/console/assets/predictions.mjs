// What comes next: a row for each item, as long as it is likely. Each row sends its item.

/** @import { Prediction, State } from "./types.mjs" */
/** @import { Actions } from "./actions.mjs" */
/** @import { Store } from "./store.mjs" */
import { fill, find, make, view, write } from "./dom.mjs";
import { counted, percent, roundUp, share } from "./format.mjs";
import { kindOf, show } from "./items.mjs";

const CHOICES = [5, 10, 20, 50];

/** @param {Store} store @param {Actions} actions */
export function predictions(store, actions) {
  const select = find("#top-k");
  select.append(...CHOICES.map((count) => make("option", { value: count }, String(count))));
  select.value = String(store.state.topK);
  select.addEventListener("change", () => actions.setTopK(Number(select.value)));
  return view(
    ({ session: { predictions }, topK, model }) => [predictions, topK, model],
    (state) => draw(state, actions),
  );
}

/** @param {State} state @param {Actions} actions */
function draw({ session: { predictions }, topK, model }, actions) {
  const items = model?.model.num_items ?? topK;
  const most = predictions.length ? roundUp(Math.max(predictions[0].probability, Number.MIN_VALUE)) : 1;
  const list = find("#predictions");
  list.style.setProperty("--rows", String(Math.min(topK, items)));
  find("#axis").hidden = !predictions.length;
  write(find("#axis span:last-child"), share(most));
  fill(list, predictions, row, (child, { item, probability }) => {
    const [button] = child.children;
    button.style.setProperty("--share", String(probability / most));
    button.dataset.kind = kindOf(item);
    button.title = `Send the ${kindOf(item)} ${show(item)}`;
    write(button.children[0], show(item));
    write(button.children[1], percent(probability));
    button.onclick = () => actions.take(item);
  });
  write(find("#rest"), rest(predictions, items));
}

function row() {
  const name = make("span", { className: "name" });
  return make("li", {}, make("button", { type: "button" }, name, make("span", { className: "probability" })));
}

/** @param {Prediction[]} predictions @param {number} items */
function rest(predictions, items) {
  const others = items - predictions.length;
  if (!predictions.length || others <= 0) return "";
  const left = predictions.reduce((sum, { probability }) => sum - probability, 1);
  return `${counted(others, "other item")}: ${percent(Math.max(left, 0))} together`;
}
