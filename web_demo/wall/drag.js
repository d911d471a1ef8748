// @ts-check
/** Drags tiles of the wall, by a mouse or a pen, to a place that is there while one is dragged. */

const FROM = 8; // pixels from which on a press is a drag

/**
 * @param {HTMLElement} grid with the tiles
 * @param {HTMLElement} place where they are dropped
 * @param {(tile: HTMLElement) => void} dropped
 */
export function createDrag(grid, place, dropped) {
  /** The tile that is pressed, and where. @type {{tile: HTMLElement, x: number, y: number} | null} */
  let pressed = null;
  let drags = false;

  grid.addEventListener("pointerdown", (event) => {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (event.pointerType === "touch" || event.button || !(tile instanceof HTMLElement)) return;
    pressed = { tile, x: event.clientX, y: event.clientY };
  });
  addEventListener("pointermove", move);
  addEventListener("pointerup", (event) => {
    const tile = pressed?.tile;
    if (drags && tile && isAt(event)) dropped(tile);
    end();
    setTimeout(() => (drags = false)); // after the click that a press ends with
  });
  for (const broken of ["pointercancel", "blur"]) addEventListener(broken, () => (end(), (drags = false)));
  grid.addEventListener("click", (event) => drags && event.stopImmediatePropagation(), true);

  /** @param {PointerEvent} event */
  function move(event) {
    if (!pressed) return;
    const [right, down] = [event.clientX - pressed.x, event.clientY - pressed.y];
    if (!drags && Math.hypot(right, down) < FROM) return;
    if (!drags) pressed.tile.setPointerCapture(event.pointerId); // so that the click after it is the tile's
    drags = true;
    place.hidden = false;
    place.toggleAttribute("data-over", isAt(event));
    pressed.tile.classList.add("dragged");
    pressed.tile.style.translate = `${right}px ${down}px`;
  }

  /** @param {PointerEvent} event */
  function isAt({ clientX, clientY }) {
    const { left, right, top, bottom } = place.getBoundingClientRect();
    return clientX >= left && clientX <= right && clientY >= top && clientY <= bottom;
  }

  /** Put the tile back. */
  function end() {
    pressed?.tile.classList.remove("dragged");
    if (pressed) pressed.tile.style.translate = "";
    pressed = null;
    place.hidden = true;
  }
}
