// A picture of recurrent state: one pixel a number, as strong as the number is large.

const COLUMNS = 128;
const ABOVE = [226, 106, 20];
const BELOW = [38, 116, 217];

/** Fill a container with a figure for every state tensor of one session. */
export function drawStates(container, state) {
  container.replaceChildren(
    ...Object.entries(state).map(([name, tensor]) => figure(name.replace("state_", ""), tensor)),
  );
}

function figure(name, { data, dims: [, ...shape] }) {
  const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const size = shape.join(" × ") || "a single number";
  const canvas = draw(data, Math.min(shape.at(-1) ?? 1, COLUMNS), largest);
  canvas.role = "img";
  canvas.ariaLabel = `State ${name}, ${size}, at most ${largest.toPrecision(2)} from zero`;
  const caption = document.createElement("figcaption");
  caption.textContent = `${name}: ${size}, up to ±${largest.toPrecision(2)}`;
  const made = document.createElement("figure");
  made.append(canvas, caption);
  return made;
}

function draw(data, width, largest) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.ceil(data.length / width);
  canvas.style.setProperty("--rows", canvas.height);
  const pixels = new ImageData(canvas.width, canvas.height);
  data.forEach((value, index) => {
    const strength = largest ? Math.abs(value) / largest : 0;
    pixels.data.set([...(value > 0 ? ABOVE : BELOW), 255 * strength], 4 * index);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}
