// @ts-check
/** Shows Markdown while it is received: what has ended stays untouched, the open block is shown anew. */

import { make } from "../shell/dom.js";
import { createSplitter } from "./blocks.js";
import { coloursOf, createCode } from "./code.js";
import { elementsOf } from "./elements.js";

/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {{root: HTMLElement, code: ReturnType<typeof createCode> | null, text: string}} Shown `text` is the source that it shows */
/** @typedef {import("./code.js").Colours} Colours */

const SOME = 16; // blocks that the browser is told of together: each time, it looks twice
const WORDS = /^[\p{L}\p{M}\p{N} ,.!?'’]+$/u; // what no rule of Markdown looks at within a line
/** The end of a line that goes on: its last word, which has a letter, with a space before and perhaps one behind. */
const LAST_WORD = /\S ([\p{L}\p{M}\p{N},.!?'’]*\p{L}[\p{L}\p{M}\p{N},.!?'’]* ?)$/u;
const ADDRESS = /www/i; // becomes a link as it grows

/** Show a text in an element. `write` takes more of it, and `paint` shows what was written. @param {HTMLElement} root */
export function createView(root) {
  const splitter = createSplitter();
  /** The shown blocks; the first `fixed` of them have ended. @type {Shown[]} */
  const shown = [];
  let fixed = 0;
  /** Of code within other blocks. @type {Map<Node, Colours>} */
  const inner = new Map();
  let past = 0; // blocks that are laid out and painted only while they are near

  function paint() {
    for (; fixed < splitter.closed.length; fixed += 1) place(fixed, splitter.closed[fixed]);
    if (fixed - past >= 2 * SOME) leave(fixed - SOME);
    const open = splitter.open();
    for (const [index, block] of open.entries()) place(fixed + index, block);
    for (const { root: gone, code } of shown.splice(fixed + open.length)) {
      code?.clear();
      gone.remove();
    }
  }

  /** @param {number} end of the blocks that are left to the browser */
  function leave(end) {
    for (; past < end; past += 1) shown[past].root.classList.add("past");
  }

  /** @param {number} index @param {Block} block */
  function place(index, block) {
    const before = shown[index];
    if (block.kind === "fence") {
      const name = block.language;
      const same = before?.code && before.root.dataset.language === name;
      const one = same ? before : replace(index, codeBlock(name));
      one.code?.show(block.text, !block.open);
      return;
    }
    const { text } = block;
    if (before && !before.code && block.open && goesOn(before, text)) return;
    const one = before && !before.code ? before : replace(index, { root: make("div", { class: "block" }), code: null, text });
    const made = make("div", {}, ...elementsOf(block));
    one.text = text;
    adjust(one.root, made);
    colour(one.root, block.open);
  }

  /** Colour code that has ended, as all has that something follows. @param {HTMLElement} within @param {boolean} open */
  function colour(within, open) {
    const last = lastOf(within);
    for (const code of within.querySelectorAll("code[data-language]")) {
      const text = /** @type {Node} */ (code.firstChild);
      if ((open && code.contains(last)) || inner.has(text)) continue;
      const colours = coloursOf(/** @type {HTMLElement} */ (code));
      inner.set(text, colours);
      colours.follow(true);
    }
  }

  /** @param {string} language @returns {Shown} */
  function codeBlock(language) {
    const code = createCode(language);
    const made = make("div", { class: "block" }, code.root);
    made.dataset.language = language;
    return { root: made, code, text: "" };
  }

  /** @param {number} index @param {Shown} next */
  function replace(index, next) {
    const before = shown[index];
    before?.code?.clear();
    if (before) before.root.replaceWith(next.root);
    else root.append(next.root);
    shown[index] = next;
    return next;
  }

  return {
    write: splitter.write,
    /** The elements of the blocks; the first `fixed` of them never change. */
    blocks: () => ({ roots: shown.map((one) => one.root), fixed }),
    paint,
    /** Show the whole text; nothing may be written after it. */
    end() {
      splitter.end();
      paint();
      leave(fixed - 1);
    },
    /** Give up what is kept for it outside of its element. */
    clear() {
      for (const one of [...shown.map(({ code }) => code), ...inner.values()]) one?.clear();
    },
  };
}

/**
 * Add words to the last text of a block, where they can be nothing but more of it, and return whether that was done.
 * A block is read anew at its end in any case.
 * @param {Shown} one @param {string} text its source as it is now
 */
function goesOn(one, text) {
  if (!text.startsWith(one.text)) return false;
  const more = text.slice(one.text.length);
  if (!more) return true;
  const [, word = ""] = (WORDS.test(more) && LAST_WORD.exec(one.text)) || [];
  if (!word || ADDRESS.test(word + more)) return false;
  const last = lastOf(one.root);
  if (!(last instanceof Text) || !last.data.endsWith(` ${word}`)) return false;
  if (text.endsWith(" ") && last.parentNode?.parentNode !== one.root) return false; // at the end of an item or a cell it is not shown
  last.appendData(more);
  one.text = text;
  return true;
}

/** Return the last node within a node. @param {Node} node @returns {Node} */
const lastOf = (node) => (node.lastChild ? lastOf(node.lastChild) : node);

/**
 * Give a node the children of another one, keeping those that are alike, so that a selection stays.
 * @param {Node} old @param {Node} made
 */
function adjust(old, made) {
  const wanted = [...made.childNodes];
  for (const [index, next] of wanted.entries()) {
    const now = old.childNodes[index];
    if (!now) old.appendChild(next);
    else if (now.isEqualNode(next)) continue;
    else if (now instanceof Text && next instanceof Text) write(now, next.data);
    else if (alike(now, next)) adjust(now, next);
    else old.replaceChild(next, now);
  }
  while (old.childNodes.length > wanted.length) old.lastChild?.remove();
}

/** Let a text grow, where it does: what it had is not shaped again then. @param {Text} node @param {string} text */
function write(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else node.data = text;
}

/** Whether two nodes are the same but for their children. @param {Node} one @param {Node} other */
function alike(one, other) {
  if (!(one instanceof HTMLElement) || one.dataset.source !== undefined) return false;
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}
