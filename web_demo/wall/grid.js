// @ts-check
/** The wall's tiles on the screen: their columns, and the keys that go from one to another. */

const LEAST_WIDTH = 112; // of a tile, in pixels
const LEAST_HEIGHT = 74;
const BEST = 1.35; // width by height
const GAP = 7;

/**
 * @param {HTMLElement} root
 * @param {() => {root: HTMLElement, act: HTMLElement}[]} tiles
 * @param {(index: number, slows: boolean) => void} tap called when a tile is clicked, or its key pressed
 */
export function createGrid(root, tiles, tap) {
  let columns = 1;
  new ResizeObserver(fit).observe(root);
  root.addEventListener("click", (event) => {
    const index = indexOf(event.target);
    if (index >= 0) tap(index, event.altKey);
  });
  root.addEventListener("keydown", onKey);
  root.addEventListener("focusin", (event) => {
    const index = indexOf(event.target);
    for (const [at, tile] of tiles().entries()) tile.act.tabIndex = at === index ? 0 : -1;
  });

  /** @param {EventTarget | null} target */
  function indexOf(target) {
    const tile = target instanceof Element ? target.closest(".tile") : null;
    return tiles().findIndex((one) => one.root === tile);
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const from = indexOf(event.target);
    if (from < 0 || event.ctrlKey || event.metaKey) return;
    if (event.key === "s" || event.key === "S") {
      event.preventDefault(); // elsewhere it is a key of the page
      tap(from, true);
    }
    const last = tiles().length - 1;
    const to = { ArrowRight: from + 1, ArrowLeft: from - 1, ArrowDown: from + columns, ArrowUp: from - columns, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tiles()[Math.min(last, Math.max(0, to))].act.focus();
  }

  /** Choose columns such that all tiles are seen at once, where they are large enough. */
  function fit() {
    const count = tiles().length;
    const { clientWidth: width } = root;
    const height = Math.min(root.clientHeight, innerHeight); // where the whole room is scrolled, it is as high as it needs
    if (!width || !count) return;
    const most = Math.max(1, Math.floor((width + GAP) / (LEAST_WIDTH + GAP)));
    const possible = Array.from({ length: Math.min(most, count) }, (_, index) => index + 1);
    const shapeOf = (/** @type {number} */ some) => {
      const rows = Math.ceil(count / some);
      const [wide, high] = [(width + GAP) / some - GAP, (height + GAP) / rows - GAP];
      const empty = (some * rows - count) / count;
      return { fits: high >= LEAST_HEIGHT, worth: Math.abs(Math.log(wide / high / BEST)) + empty * 2, high, rows };
    };
    const shapes = possible.map((some) => ({ some, ...shapeOf(some) }));
    const fitting = shapes.filter(({ fits }) => fits).sort((one, other) => one.worth - other.worth);
    columns = (fitting[0] ?? { some: Math.min(most, Math.max(2, Math.floor(width / 150))) }).some;
    root.classList.toggle("scrolls", !fitting.length);
    root.style.setProperty("--columns", String(columns));
    const [first] = tiles();
    if (!tiles().some((tile) => tile.act.tabIndex === 0)) first.act.tabIndex = 0;
  }

  return { fit };
}
