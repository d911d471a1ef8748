// @ts-check
/** A small curve of a number over time, on a canvas. */

const HEADROOM = 1.15; // of the highest number
const FEWEST = 24; // numbers that fill the width

/**
 * A curve that keeps the last `points` numbers, and draws them when one is added. It is as wide as its canvas
 * from a few numbers on.
 * @param {HTMLCanvasElement} canvas in the colour of its text
 * @param {{points?: number, least?: number}} [options] `least` is what the top stands for at least
 */
export function createCurve(canvas, { points = 120, least = 1 } = {}) {
  /** @type {number[]} */
  let values = [];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));

  function draw() {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return; // it is not shown
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (values.length < 2) return;
    const top = Math.max(least, ...values) * HEADROOM;
    const step = width / (Math.max(FEWEST, values.length) - 1);
    const first = width - step * (values.length - 1);
    const line = new Path2D();
    for (const [index, value] of values.entries()) {
      line.lineTo(first + index * step, height - 1 - (value / top) * (height - 2));
    }
    context.strokeStyle = context.fillStyle = getComputedStyle(canvas).color;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.stroke(line);
    line.lineTo(width, height);
    line.lineTo(first, height);
    context.globalAlpha = 0.12;
    context.fill(line);
    context.globalAlpha = 1;
  }

  return {
    /** @param {number} value */
    add(value) {
      values = [...values.slice(1 - points), value];
      draw();
    },
    draw,
    clear() {
      values = [];
      draw();
    },
  };
}
