// @ts-check
/** A small curve of a number over time. It is a picture of lines: unlike a canvas, it asks for no size and no colour. */

const HEIGHT = 100; // in the picture's own units
const HEADROOM = 1.15; // of the highest number
const FEWEST = 24; // numbers that fill the width
const SVG = "http://www.w3.org/2000/svg";

/** Return an element for a curve. @param {string} [name] its class */
export function curveRoot(name = "") {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("class", `curve ${name}`.trim());
  root.setAttribute("aria-hidden", "true");
  return root;
}

/**
 * A curve that keeps the last `points` numbers, and draws them when one is added. It is as wide as its element
 * from a few numbers on.
 * @param {SVGSVGElement} root in the colour of its text
 * @param {{points?: number, least?: number}} [options] `least` is what the top stands for at least
 */
export function createCurve(root, { points = 120, least = 1 } = {}) {
  /** @type {(number | null)[]} */
  let values = [];
  let box = "";
  root.setAttribute("preserveAspectRatio", "none");
  const [area, line] = ["area", "line"].map((name) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    root.append(path);
    return path;
  });

  function draw() {
    const width = Math.max(FEWEST, values.length) - 1;
    const first = width - values.length + 1;
    const top = Math.max(least, ...values.map((value) => value ?? 0)) * HEADROOM;
    /** Numbers that follow each other, as points. @type {[x: number, y: string][][]} */
    const runs = [[]];
    for (const [index, value] of values.entries()) {
      if (value === null) runs.push([]);
      else runs[runs.length - 1].push([first + index, (HEIGHT * (1 - value / top)).toFixed(1)]);
    }
    const drawn = runs.filter((run) => run.length);
    const courses = drawn.map((run) => `M${run.map((point) => point.join(" ")).join("L")}${run.length > 1 ? "" : "h1"}`);
    const next = `0 0 ${width} ${HEIGHT}`;
    if (box !== next) root.setAttribute("viewBox", (box = next));
    line.setAttribute("d", courses.join(""));
    area.setAttribute("d", courses.map((course, index) => `${course}V${HEIGHT}H${drawn[index][0][0]}z`).join(""));
  }

  return {
    /** @param {number | null} value null where there is none, which leaves a gap */
    add(value) {
      values = [...values.slice(1 - points), value];
      draw();
    },
    clear() {
      values = [];
      draw();
    },
  };
}
