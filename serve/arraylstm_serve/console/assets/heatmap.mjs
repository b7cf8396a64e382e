// A picture of a tensor: a cell for each number, its colour stronger the farther it is from zero.

const LEAST = 9; // pixels that a cell is wide, if there is room
const MOST = 26;
const GUTTER = 18; // where the rows' numbers stand
const GAP = 4; // between rows that are folded

/**
 * @typedef {object} Grid Lengths are in CSS pixels.
 * @property {number} columns
 * @property {number} lanes How many times the last axis runs across.
 * @property {number} fold Rows that one of these takes.
 * @property {number} width Of a cell.
 * @property {number} height Of a cell.
 * @property {number} gutter Left of the cells.
 * @property {number} gap Between lanes.
 */
/** @typedef {{above: string, below: string, zero: string, text: string}} Colours */

/**
 * How to lay a tensor out: its last axis runs across, folded where it is too long; all others run down.
 * @param {number[]} shape @param {number} room Pixels across. @returns {Grid}
 */
export function layOut(shape, room) {
  const length = shape.at(-1) ?? 1;
  const lanes = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const gutter = lanes > 1 ? GUTTER : 0;
  const fits = Math.max(1, Math.floor((room - gutter) / LEAST));
  const columns = length <= fits ? length : 2 ** Math.floor(Math.log2(fits));
  const fold = Math.ceil(length / columns);
  const width = Math.min(MOST, (room - gutter) / columns);
  const height = Math.min(MOST, Math.max(8, Math.min(2.2 * width, 168 / (lanes * fold))));
  return { columns, lanes, fold, width, height, gutter, gap: lanes > 1 && fold > 1 ? GAP : 0 };
}

/** @param {Grid} grid */
export function sizeOf({ columns, lanes, fold, width, height, gutter, gap }) {
  return { width: gutter + columns * width, height: lanes * fold * height + (lanes - 1) * gap };
}

/** Where a number's cell is. @param {Grid} grid @param {number} index @param {number} length */
function place({ columns, fold, width, height, gutter, gap }, index, length) {
  const [lane, unit] = [Math.floor(index / length), index % length];
  const row = lane * fold + Math.floor(unit / columns);
  return { x: gutter + (unit % columns) * width, y: row * height + lane * gap };
}

/**
 * The index of the number at a point, -1 for none.
 * @param {Grid} grid
 * @param {number} x
 * @param {number} y
 * @param {number} length
 */
export function indexAt({ columns, lanes, fold, width, height, gutter, gap }, x, y, length) {
  const tall = fold * height + gap;
  const [lane, column] = [Math.floor(y / tall), Math.floor((x - gutter) / width)];
  const unit = Math.floor((y - lane * tall) / height) * columns + column;
  const inside =
    lane >= 0 &&
    lane < lanes &&
    column >= 0 &&
    column < columns &&
    unit >= 0 &&
    unit < length &&
    y - lane * tall < fold * height;
  return inside ? lane * length + unit : -1;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} data
 * @param {number} length
 * @param {Grid} grid
 * @param {number} reach
 * @param {Colours} colours
 */
export function paint(canvas, data, length, grid, reach, colours) {
  const { width, height } = sizeOf(grid);
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  const line = grid.width >= 7 ? 1 : 0.5;
  data.forEach((value, index) => {
    const { x, y } = place(grid, index, length);
    context.globalAlpha = 1;
    context.fillStyle = colours.zero;
    context.fillRect(x, y, grid.width - line, grid.height - line);
    context.globalAlpha = reach ? Math.min(1, Math.abs(value) / reach) : 0;
    context.fillStyle = value > 0 ? colours.above : colours.below;
    context.fillRect(x, y, grid.width - line, grid.height - line);
  });
  if (grid.gutter) number(context, grid, colours.text);
}

/** @param {CanvasRenderingContext2D} context @param {Grid} grid @param {string} colour */
function number(context, { lanes, fold, height, gap }, colour) {
  const tall = fold * height + gap;
  context.globalAlpha = 1;
  context.fillStyle = colour;
  context.font = "11px ui-monospace, monospace";
  context.textBaseline = "middle";
  const each = Math.ceil(12 / tall);
  for (let lane = 0; lane < lanes; lane += each) {
    context.fillText(String(lane + 1), 0, lane * tall + (fold * height) / 2);
  }
}
