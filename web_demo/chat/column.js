// @ts-check
/** One answer while it is received, with its thinking and its tool calls. */

import { createView } from "../markdown/view.js";
import { copyOf, find } from "../shell/dom.js";
import { marked, piecesOf, watchPieces } from "./sureness.js";
import { createCard } from "../tools/tools.js";

/**
 * @typedef {string | import("./sureness.js").Piece} Waiting text that is not shown yet, or
 *   a piece of text with its log-probabilities
 */

/** @param {boolean} plain whether the text is shown as it is, and not read as Markdown */
export function createColumn(plain) {
  const root = copyOf("#column");
  /** Where thinking is shown; null after a call, which it must follow. @type {HTMLDetailsElement | null} */
  let thinking = find(".reasoning", root);
  let text = find(".text", root);
  /** Shows Markdown in `text`; null while there is none. @type {ReturnType<typeof createView> | null} */
  let view = null;
  /** The newest element with pieces that show their odds. @type {HTMLElement | null} */
  let watched = null;
  /** The newest card for each index of a call. @type {ReturnType<typeof createCard>[]} */
  const cards = [];
  /** @type {Waiting[]} */
  let waiting = [];
  let thought = "";
  let thoughtAt = 0; // when the shown thinking began; 0 once it has ended
  let said = "";
  text.classList.toggle("markdown", !plain);

  /** Return the card of a call, or add one; later text goes below it. @param {number} index */
  function cardOf(index) {
    if (cards[index] && !cards[index].closed) return cards[index];
    paint();
    const made = copyOf("#call");
    const next = text.cloneNode(false);
    view?.end();
    view = null;
    find(".said", root).append(made, next);
    if (!text.textContent) text.remove();
    text = next;
    if (!thinking?.hidden) thinking = null;
    cards[index] = createCard(made);
    return cards[index];
  }

  /** Show the text that was added since the last call. */
  function paint() {
    if (thought) think();
    if (waiting.length) show();
    thought = "";
    waiting = [];
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
    const seconds = (performance.now() - thoughtAt) / 1000;
    find("summary", thinking).textContent = `Thought for ${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
    thinking.open = false;
    thoughtAt = 0;
  }

  function show() {
    fold();
    if (!plain) {
      view ??= createView(text);
      for (const one of waiting) view.write(typeof one === "string" ? one : one.text);
      view.paint();
      return;
    }
    const made = waiting.flatMap((one) => (typeof one === "string" ? one : marked(one)));
    text.append(...made);
    const first = made.find((one) => one instanceof HTMLElement);
    if (!first || watched === text) return;
    watched = text;
    first.tabIndex = 0;
    watchPieces(text);
  }

  /** @param {import("../client.js").Chunk} chunk */
  function add(chunk) {
    if (chunk.channel === "reasoning") {
      thought += chunk.text;
      return;
    }
    said += chunk.text;
    for (const piece of piecesOf(chunk.text, chunk.logprobs ?? [])) {
      const last = waiting.length - 1;
      if (piece.tokens.length) waiting.push(piece);
      else if (typeof waiting[last] === "string") waiting[last] += piece.text;
      else waiting.push(piece.text);
    }
  }

  return {
    root,
    add,
    paint,
    /** Show all of the text; nothing comes after it. */
    end() {
      paint();
      view?.end();
    },
    /** Forget all of the text. */
    empty() {
      view?.clear();
      view = null;
      text.replaceChildren();
      said = thought = "";
      waiting = [];
    },
    /** Give up what is kept for it outside of its element. */
    clear: () => view?.clear(),
    /** The text of the answer so far. */
    said: () => said,
    cardOf,
    /** The newest card with this index. @param {number} index */
    card: (index) => cards[index],
  };
}
