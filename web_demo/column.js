// @ts-check
/** One text as it comes, with the thinking before it and the tool calls in it. */

import { copyOf, find } from "./dom.js";
import { marked, piecesOf, watchPieces } from "./sureness.js";
import { createCard } from "./tools.js";

/**
 * @typedef {string | import("./sureness.js").Piece} Waiting what a column does not show yet: text, or
 *   a piece of which the odds are known
 */

export function createColumn() {
  const root = copyOf("#column");
  /** Where thinking goes; null after a call, when it goes below that. @type {HTMLDetailsElement | null} */
  let thinking = find(".reasoning", root);
  let text = find(".text", root);
  /** The text whose pieces show their odds. @type {HTMLElement | null} */
  let watched = null;
  /** The newest call of each index. @type {ReturnType<typeof createCard>[]} */
  const cards = [];
  /** @type {Waiting[]} */
  let waiting = [];
  let thought = "";
  let said = "";

  /** The card of a call; text that comes later goes below it. @param {number} index */
  function cardOf(index) {
    if (cards[index] && !cards[index].closed) return cards[index];
    paint();
    const made = copyOf("#call");
    const next = text.cloneNode(false);
    find(".said", root).append(made, next);
    if (!text.textContent) text.remove();
    text = next;
    if (!thinking?.hidden) thinking = null;
    cards[index] = createCard(made);
    return cards[index];
  }

  /** Show what has come since the last time. */
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
    if (thinking.hidden) thinking.open = true; // but who closes it does not want to see what comes
    thinking.hidden = false;
    find("div", thinking).append(thought);
  }

  function show() {
    const made = waiting.flatMap((one) => (typeof one === "string" ? one : marked(one)));
    text.append(...made);
    const first = made.find((one) => one instanceof HTMLElement);
    if (!first || watched === text) return;
    watched = text;
    first.tabIndex = 0;
    watchPieces(text);
  }

  /** @param {import("./client.js").Chunk} chunk */
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
    /** The text of the answer so far. */
    said: () => said,
    cardOf,
    /** The card that there is. @param {number} index */
    card: (index) => cards[index],
  };
}
