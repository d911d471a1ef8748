// @ts-check
/**
 * How sure the model was of each piece of a text. The alternatives of a piece are shown beside it. Where the browser
 * can't mark a text as it is, which odds.js does, each piece is an element of its own.
 */

import { copyOf, find } from "../shell/dom.js";

/** @typedef {import("../client.js").TokenLogprob} TokenLogprob */
/** @typedef {{text: string, tokens: TokenLogprob[]}} Piece `tokens` is empty without log-probabilities */

/** The lower bounds of the marks, as probabilities; chat.css draws the marks. */
const MARKS = [0.9, 0.7, 0.4, 0.15];
/** Characters within which a token's text is searched; some may be held back or have lost a space. */
const NEAR = 16;
const GAP = 6; // pixels between a piece and its odds

/** @type {WeakMap<Element, TokenLogprob[]>} */
const tokensOf = new WeakMap();
/** The element that shows the odds; there is one for the whole page. @type {HTMLElement | null} */
let odds = null;
/** Returns where the piece is whose odds are shown. @type {() => DOMRect | null} */
let where = () => null;

/**
 * Split a chunk's text into pieces, one per token. Tokens that are parts of one character share a
 * piece. Joined, the pieces are exactly the text.
 * @param {string} text
 * @param {TokenLogprob[]} tokens
 * @returns {Piece[]}
 */
export function piecesOf(text, tokens) {
  /** @type {Piece[]} */
  const pieces = [];
  /** @type {TokenLogprob[]} */
  let group = [];
  let at = 0;
  for (const token of tokens) {
    const found = token.bytes && token.token ? text.indexOf(token.token, at) : -1;
    if (found < 0 || found - at > NEAR) {
      group.push(token);
      continue;
    }
    const begin = group.length ? found : at; // text before it belongs to the group, if there is one
    if (begin > at) pieces.push({ text: text.slice(at, begin), tokens: group });
    at = found + token.token.length;
    pieces.push({ text: text.slice(begin, at), tokens: [token] });
    group = [];
  }
  if (at < text.length) pieces.push({ text: text.slice(at), tokens: group });
  return pieces;
}

/** Return a piece as nodes, with the spaces around a word outside of its mark. @param {Piece} piece */
export function marked({ text, tokens }) {
  const word = text.trim() || text;
  const [before, after] = [text.slice(0, text.indexOf(word)), text.slice(text.indexOf(word) + word.length)];
  const span = document.createElement("span");
  span.textContent = word;
  span.className = "piece";
  span.tabIndex = -1;
  span.dataset.mark = String(markOf(tokens));
  tokensOf.set(span, tokens);
  return [before, span, after].filter(Boolean);
}

/**
 * Let the pieces of a text show their odds to mouse, touch and keyboard. The text takes part in
 * keyboard navigation as one element.
 * @param {HTMLElement} text
 */
export function watchPieces(text) {
  text.addEventListener("focusin", (event) => show(event.target));
  text.addEventListener("focusout", hide);
  text.addEventListener("pointerover", (event) => event.pointerType === "mouse" && show(event.target));
  text.addEventListener("pointerleave", () => show(document.activeElement));
  text.addEventListener("keydown", move);
}

/** Return the mark of a piece: 0 if the model was sure, and up to 4. @param {TokenLogprob[]} tokens */
export const markOf = (tokens) => MARKS.filter((least) => probabilityOf(tokens) < least).length;

/** @param {TokenLogprob[]} tokens */
function probabilityOf(tokens) {
  return Math.exp(tokens.reduce((sum, token) => sum + token.logprob, 0));
}

/** Move the focus from piece to piece; Tab returns to the last one. @param {KeyboardEvent} event */
function move(event) {
  const here = /** @type {HTMLElement} */ (event.target);
  if (event.key === "Escape") hide();
  const pieces = /** @type {HTMLElement[]} */ ([...(here.parentElement?.children ?? [])]);
  const to = {
    ArrowRight: here.nextElementSibling,
    ArrowLeft: here.previousElementSibling,
    Home: pieces[0],
    End: pieces.at(-1),
  }[event.key];
  if (!(to instanceof HTMLElement) || !tokensOf.has(here) || !tokensOf.has(to)) return;
  event.preventDefault();
  here.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

/** @param {EventTarget | null} target */
function show(target) {
  hide();
  const tokens = target instanceof HTMLElement && tokensOf.get(target);
  if (!tokens) return;
  showOdds(tokens, () => target.getClientRects()[0] ?? null);
  target.setAttribute("aria-describedby", "odds-shown");
}

function hide() {
  find('[aria-describedby="odds-shown"]')?.removeAttribute("aria-describedby");
  hideOdds();
}

/** Show the alternatives of a piece. @param {TokenLogprob[]} tokens @param {() => DOMRect | null} at where the piece is */
export function showOdds(tokens, at) {
  hideOdds();
  odds = copyOf("#odds");
  odds?.append(...rowsOf(tokens));
  document.body.append(/** @type {HTMLElement} */ (odds));
  where = at;
  place();
  addEventListener("scroll", place, { capture: true });
}

export function hideOdds() {
  odds?.remove();
  odds = null;
  removeEventListener("scroll", place, { capture: true });
}

/** Move the odds beside their piece, above it if there is room. */
function place() {
  const line = where();
  if (!odds || !line) return;
  const { width, height } = odds.getBoundingClientRect();
  const left = Math.min(line.left, innerWidth - width - GAP);
  const above = line.top - height - GAP;
  odds.style.left = `${Math.max(GAP, left)}px`;
  odds.style.top = `${above > GAP ? above : line.bottom + GAP}px`;
}

/** Return the alternatives in words. @param {TokenLogprob[]} tokens */
export function saidOf(tokens) {
  const [first, ...others] = oddsOf(tokens).sort((one, other) => Number(other.drawn) - Number(one.drawn));
  const rest = others.map(({ name, probability }) => `${name} ${percent(probability)}`).join(", ");
  return `${first.name}, ${percent(first.probability)}${rest ? `; else ${rest}` : ""}.`;
}

/** @param {TokenLogprob[]} tokens */
const rowsOf = (tokens) => oddsOf(tokens).map(({ name, probability, drawn }) => rowOf(name, probability, drawn));

/** Return each of the likeliest tokens, and the one that was sampled. @param {TokenLogprob[]} tokens */
function oddsOf(tokens) {
  const [drawn] = tokens;
  if (tokens.length > 1) return [{ name: "together", probability: probabilityOf(tokens), drawn: true }];
  const top = drawn.top_logprobs ?? [];
  const isDrawn = (/** @type {TokenLogprob} */ other) =>
    other.token === drawn.token && Math.abs(other.logprob - drawn.logprob) < 1e-3;
  const all = top.some(isDrawn) ? top : [...top, drawn];
  return all.map((one) => ({ name: visible(one.token), probability: Math.exp(one.logprob), drawn: isDrawn(one) }));
}

/** @param {string} name @param {number} probability @param {boolean} isDrawn */
function rowOf(name, probability, isDrawn) {
  const row = copyOf("#odds-row");
  row.classList.toggle("drawn", isDrawn);
  find(".name", row).textContent = name;
  find(".share", row).style.width = `${100 * probability}%`;
  find(".percent", row).textContent = percent(probability);
  return row;
}

/** @param {number} probability */
function percent(probability) {
  return probability < 0.01 ? "under 1 %" : `${Math.round(100 * probability)} %`;
}

/** Return a token's text with visible signs for spaces and line ends. @param {string} text */
function visible(text) {
  return text.replace(/^ | $/g, "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "(nothing)";
}
