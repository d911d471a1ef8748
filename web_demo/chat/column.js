// @ts-check
/** One answer while it is received, with its thinking and its tool calls. */

import { createView } from "../markdown/view.js";
import { copyOf, find, useStyle } from "../shell/dom.js";
import { createCard } from "../tools/tools.js";
import { duration } from "./life.js";

const MARK_MS = 500;

/** What marks pieces of text, once an answer with log-probabilities has been asked for. @type {typeof import("./odds.js") | null} */
let marks = null;

/** Load what marks pieces of text; an answer that is made before has no marks. */
export async function loadMarks() {
  const [loaded] = await Promise.all([import("./odds.js"), useStyle("/chat/odds.css")]);
  return (marks ??= loaded);
}

/**
 * @typedef {string | import("./sureness.js").Piece} Waiting text that is not shown yet, or
 *   a piece of text with its log-probabilities
 */

/**
 * @param {boolean} verbatim whether the text is shown as it is, and not read as Markdown
 * @param {boolean} sureness whether its pieces are marked, if `loadMarks` was called
 */
export function createColumn(verbatim, sureness) {
  const sure = sureness ? marks : null;
  const spans = sure !== null && !sure.canMark(); // then each piece is an element, which Markdown would take apart
  const plain = verbatim || spans;
  const root = copyOf("#column");
  /** Where thinking is shown; null after a call, which it must follow. @type {HTMLDetailsElement | null} */
  let thinking = find(".reasoning", root);
  let text = find(".text", root);
  /** Shows Markdown in `text`; null while there is none. @type {ReturnType<typeof createView> | null} */
  let view = null;
  /** Marks the pieces of `text`; null while there are none. @type {ReturnType<typeof import("./odds.js").createOdds> | null} */
  let odds = null;
  /** What marks the texts above a call. @type {ReturnType<typeof import("./odds.js").createOdds>[]} */
  const earlier = [];
  /** The newest element with pieces that show their odds. @type {HTMLElement | null} */
  let watched = null;
  /** The newest card for each index of a call. @type {ReturnType<typeof createCard>[]} */
  const cards = [];
  /** @type {Waiting[]} */
  let waiting = [];
  /** All of the text, where it is marked. @type {import("./sureness.js").Piece[]} */
  const pieces = [];
  let thought = "";
  let thoughtAt = 0; // when the shown thinking began; 0 once it has ended
  let thoughtFor = 0; // milliseconds, of all thinking that has ended
  let said = "";
  let markedAt = 0;
  text.classList.toggle("markdown", !plain);

  /** Return the card of a call, or add one; later text goes below it. @param {number} index */
  function cardOf(index) {
    if (cards[index] && !cards[index].closed) return cards[index];
    paint();
    const made = copyOf("#call");
    const next = text.cloneNode(false);
    end();
    view = null;
    if (odds) earlier.push(odds);
    odds = null;
    find(".said", root).append(made, next);
    if (!text.textContent) text.remove();
    text = next;
    if (!thinking?.hidden) thinking = null;
    cards[index] = createCard(made);
    return cards[index];
  }

  /** Show the text that was added since the last call. */
  function paint() {
    const given = waiting;
    waiting = []; // at once, so that nothing is shown twice
    if (thought) think();
    thought = "";
    if (given.length) show(given);
  }

  function think() {
    if (!thinking) {
      thinking = /** @type {HTMLDetailsElement} */ (find(".reasoning", root).cloneNode(true));
      find("div", thinking).textContent = "";
      thinking.hidden = true;
      text.before(thinking);
    }
    if (thinking.hidden) {
      thinking.open = true; // only at first, so that it stays closed if the user closes it
      thoughtAt = performance.now();
    }
    thinking.hidden = false;
    find("div", thinking).append(thought);
  }

  /** Fold the thinking, because the answer has begun. */
  function fold() {
    if (!thinking || !thoughtAt) return;
    const time = performance.now() - thoughtAt;
    thoughtFor += time;
    find("summary", thinking).textContent = `Thought for ${duration(time)}`;
    thinking.open = false;
    thoughtAt = 0;
  }

  /** @param {Waiting[]} given */
  function show(given) {
    fold();
    if (sure && !spans) {
      odds ??= sure.createOdds(text);
      for (const one of given) odds.add(typeof one === "string" ? { text: one, tokens: [] } : one);
    }
    if (!plain) {
      view ??= createView(text);
      for (const one of given) view.write(typeof one === "string" ? one : one.text);
      view.paint();
      return place();
    }
    if (!sure || !spans) {
      const more = given.map((one) => (typeof one === "string" ? one : one.text)).join("");
      if (text.firstChild instanceof Text) text.firstChild.appendData(more);
      else text.append(more);
      return place();
    }
    const made = given.flatMap((one) => (typeof one === "string" ? one : sure.marked(one)));
    text.append(...made);
    const first = made.find((one) => one instanceof HTMLElement);
    if (!first || watched === text) return;
    watched = text;
    first.tabIndex = 0;
    sure.watchPieces(text);
  }

  /** Let the marks follow the text, some times a second: each change of a mark makes the browser look at all of them. */
  function place() {
    if (odds && performance.now() - markedAt >= MARK_MS) mark();
  }

  function mark() {
    if (!odds) return;
    markedAt = performance.now();
    const { roots, fixed } = view?.blocks() ?? { roots: [text], fixed: 0 };
    odds.place(roots, fixed);
  }

  /** Show all of the text; nothing comes after it. */
  function end() {
    view?.end();
    mark();
  }

  /** @param {import("../client.js").Chunk} chunk */
  function add(chunk) {
    if (chunk.channel === "reasoning") {
      thought += chunk.text;
      return;
    }
    said += chunk.text;
    if (!sure) {
      const last = waiting.length - 1;
      if (last < 0) waiting.push(chunk.text);
      else waiting[last] += chunk.text;
      return;
    }
    put(sure.piecesOf(chunk.text, chunk.logprobs ?? []));
  }

  /** Add pieces of text. @param {import("./sureness.js").Piece[]} more */
  function put(more) {
    pieces.push(...more);
    for (const piece of more) {
      const last = waiting.length - 1;
      if (piece.tokens.length) waiting.push(piece);
      else if (typeof waiting[last] === "string") waiting[last] += piece.text;
      else waiting.push(piece.text);
    }
  }

  /** Give up what is kept for it outside of its element. */
  function clear() {
    view?.clear();
    for (const one of [...earlier, odds]) one?.clear();
  }

  return {
    root,
    add,
    paint,
    /** Let the marks follow all of the text that is shown. */
    mark,
    /** Show all of the text; nothing comes after it. */
    end() {
      paint();
      end();
    },
    clear,
    /** For how long it has thought, in milliseconds. */
    thought: () => thoughtFor,
    /** Show for how long it has thought, because that was recorded. @param {number} ms */
    thoughtFor(ms) {
      const summary = find(".reasoning summary", root);
      if (summary) summary.textContent = `Thought for ${duration(ms)}`;
    },
    /** The text of the answer so far. */
    said: () => said,
    /** How sure the model was of it, as it is kept; undefined where nothing is known. */
    odds: () => (pieces.some(({ tokens }) => tokens.length) ? sure?.keptOf(pieces) : undefined),
    /** Add pieces of which that is known. @param {import("./sureness.js").Piece[]} more */
    put(more) {
      for (const { text: one } of more) said += one;
      put(more);
    },
    cardOf,
    /** The newest card with this index. @param {number} index */
    card: (index) => cards[index],
  };
}
