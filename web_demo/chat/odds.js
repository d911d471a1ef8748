// @ts-check
/**
 * Marks how sure the model was of each piece of a text that stays as it is: the pieces are ranges of the CSS Custom
 * Highlight API. The alternatives of a piece are shown to who points at it, taps it, or goes there by the arrow keys.
 */

import { addRuns, rangeOf } from "../markdown/places.js";
import { say } from "../shell/speaker.js";
import { hideOdds, markOf, saidOf, showOdds } from "./sureness.js";

export { keptOf, piecesFrom } from "./kept_odds.js";
export { marked, piecesOf, watchPieces } from "./sureness.js";

/** @typedef {import("./sureness.js").Piece} Piece */
/** @typedef {import("../markdown/places.js").Run} Run */
/** @typedef {{begin: number, end: number, piece: Piece, mark: number, range: StaticRange | null}} Marked `begin` and `end` are places in the source */

/** Whether the browser can mark a text without changing it. */
export const canMark = () => "highlights" in CSS && "Highlight" in globalThis;

/** @param {string} name @returns {any} */
function highlightOf(name) {
  const { highlights } = /** @type {any} */ (CSS);
  const made = highlights.get(name) ?? new /** @type {any} */ (globalThis).Highlight();
  highlights.set(name, made);
  return made;
}

/** @param {HTMLElement} text the element with the text; it takes part in keyboard navigation as one */
export function createOdds(text) {
  /** @type {Marked[]} */
  const pieces = [];
  let source = "";
  /** Runs of blocks that never change. @type {Run[]} */
  const fixedRuns = [];
  /** @type {Run[]} */
  let runs = [];
  let blocks = 0; // that are in `fixedRuns`
  let fixedTo = 0; // where in the source they end
  let settled = 0; // pieces whose ranges never change
  let here = -1; // the piece that is shown

  /** @param {Marked} one @param {StaticRangeInit | null} wanted */
  function mark(one, wanted) {
    const { range } = one;
    if (range && wanted && same(range, wanted)) return;
    const highlight = one.mark ? highlightOf(`odds-${one.mark}`) : null;
    if (range) highlight?.delete(range);
    one.range = wanted && new StaticRange(wanted);
    if (one.range) highlight?.add(one.range);
  }

  /** Give all pieces that may still move their ranges. */
  function place() {
    let first = Math.max(0, fixedRuns.length - 1);
    const from = settled ? pieces[settled - 1].begin : 0;
    while (first > 0 && runs[first].source > from) first -= 1;
    for (let index = settled; index < pieces.length; index += 1) {
      const one = pieces[index];
      const found = rangeOf(runs, one.begin, one.end, first);
      first = Math.max(0, found.from - 1);
      mark(one, found.range);
      if (one.end <= fixedTo && index === settled) settled += 1;
    }
  }

  /** @param {number} index @param {boolean} spoken */
  function show(index, spoken) {
    if (index === here) return;
    const current = highlightOf("odds-here");
    current.clear();
    here = index;
    const one = pieces[index];
    if (!one?.range) return hideOdds();
    current.add(one.range);
    const { startContainer, startOffset, endContainer, endOffset } = one.range;
    const live = new Range();
    live.setStart(startContainer, startOffset);
    live.setEnd(endContainer, endOffset);
    showOdds(one.piece.tokens, () => live.getClientRects()[0] ?? null);
    if (!spoken) return;
    const box = live.getBoundingClientRect();
    const outside = box.top < 80 || box.bottom > innerHeight - 160;
    if (outside) /** @type {HTMLElement} */ (startContainer.parentElement)?.scrollIntoView({ block: "center" });
    say(saidOf(one.piece.tokens));
  }

  const leave = () => show(-1, false);

  /** Return the piece at a point, -1 if there is none. @param {number} x @param {number} y */
  function at(x, y) {
    const [node, offset] = caretAt(x, y);
    const run = node && runs.find((one) => one.node === node && offset >= one.offset && offset <= one.offset + one.length);
    if (!run) return -1;
    const place_ = run.source + offset - run.offset;
    // A caret between two pieces belongs to the one that the point is in.
    return pieces.findIndex(({ begin, end, range, piece }) => begin <= place_ && place_ <= end && piece.tokens.length > 0 && holds(range, x, y));
  }

  /** @param {number} from @param {number} step */
  function next(from, step) {
    for (let index = from; index >= 0 && index < pieces.length; index += step)
      if (pieces[index].range && pieces[index].piece.tokens.length) return index;
    return -1;
  }

  /** @param {KeyboardEvent} event */
  function move(event) {
    if (event.key === "Escape" && here >= 0) event.stopPropagation();
    if (event.key === "Escape") return leave();
    /** @type {Record<string, () => number>} */
    const steps = {
      ArrowRight: () => next(here + 1, 1),
      ArrowLeft: () => next(here < 0 ? -1 : here - 1, -1),
      Home: () => next(0, 1),
      End: () => next(pieces.length - 1, -1),
    };
    const to = steps[event.key]?.();
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0) show(to, true);
  }

  text.addEventListener("pointermove", (event) => event.pointerType === "mouse" && show(at(event.clientX, event.clientY), false));
  text.addEventListener("pointerleave", leave);
  text.addEventListener("click", (event) => show(at(event.clientX, event.clientY), false));
  text.addEventListener("keydown", move);
  text.addEventListener("focus", () => text.matches(":focus-visible") && show(next(0, 1), true));
  text.addEventListener("blur", leave);

  return {
    /** @param {Piece} piece */
    add(piece) {
      const begin = source.length;
      source += piece.text;
      if (!piece.tokens.length) return;
      const blank = piece.text.length - piece.text.trimStart().length;
      const word = piece.text.trim();
      const [from, to] = word ? [begin + blank, begin + blank + word.length] : [begin, source.length];
      pieces.push({ begin: from, end: to, piece, mark: markOf(piece.tokens), range: null });
      if (pieces.length > 1) return;
      text.tabIndex = 0;
      text.role = "group";
      text.ariaLabel = "Answer; the arrow keys go from word to word, and say how sure the model was of it";
    },
    /** Find the places of the pieces. @param {HTMLElement[]} roots the blocks of the text @param {number} fixed how many of them never change */
    place(roots, fixed) {
      if (!pieces.length) return;
      for (; blocks < fixed; blocks += 1) fixedTo = addRuns(roots[blocks], source, fixedTo, fixedRuns);
      runs = [...fixedRuns];
      let from = fixedTo;
      for (const root of roots.slice(fixed)) from = addRuns(root, source, from, runs);
      place();
    },
    /** Give up what is kept outside of the text. */
    clear() {
      leave();
      for (const one of pieces) mark(one, null);
    },
  };
}

/** @param {StaticRange} one @param {StaticRangeInit} other */
function same(one, other) {
  return (
    one.startContainer === other.startContainer && one.startOffset === other.startOffset &&
    one.endContainer === other.endContainer && one.endOffset === other.endOffset
  );
}

/** @param {StaticRange | null} range @param {number} x @param {number} y */
function holds(range, x, y) {
  if (!range) return false;
  const live = new Range();
  live.setStart(range.startContainer, range.startOffset);
  live.setEnd(range.endContainer, range.endOffset);
  return [...live.getClientRects()].some((box) => box.left - 1 <= x && x <= box.right + 1 && box.top <= y && y <= box.bottom);
}

/** Return the node and the offset at a point. @param {number} x @param {number} y @returns {[Node | null, number]} */
function caretAt(x, y) {
  const page = /** @type {any} */ (document);
  const position = page.caretPositionFromPoint?.(x, y);
  if (position) return [position.offsetNode, position.offset];
  const range = page.caretRangeFromPoint?.(x, y);
  return range ? [range.startContainer, range.startOffset] : [null, 0];
}
