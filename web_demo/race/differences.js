// @ts-check
/** Where two texts differ, by their words. No I/O. */

const MOST = 1500; // words of a text; further ones are compared as they stand

/** @typedef {{from: number, to: number}} Span from one character to another */

/** Return the words of a text and where they stand. @param {string} text */
export function wordsOf(text) {
  return [...text.matchAll(/[\p{L}\p{N}\p{M}'’_-]+|[^\s\p{L}\p{N}\p{M}]/gu)].map((found) => ({
    word: found[0], from: found.index, to: found.index + found[0].length,
  }));
}

/**
 * Return what a text has that another one has not, as spans of its characters, neighbours as one.
 * @param {string} text @param {string} other
 * @returns {Span[]}
 */
export function onlyIn(text, other) {
  const [mine, theirs] = [wordsOf(text).slice(0, MOST), wordsOf(other).slice(0, MOST)];
  const shared = sharedOf(mine.map(({ word }) => word), theirs.map(({ word }) => word));
  /** @type {Span[]} */
  const spans = [];
  let joined = false; // whether the word before was another one too
  for (const [index, { from, to }] of mine.entries()) {
    if (shared.has(index)) joined = false;
    else if (joined) spans[spans.length - 1].to = to;
    else {
      spans.push({ from, to });
      joined = true;
    }
  }
  return spans;
}

/**
 * Return the indices of the words that belong to the longest common sequence.
 * @param {string[]} mine @param {string[]} theirs
 */
function sharedOf(mine, theirs) {
  const width = theirs.length + 1;
  const lengths = new Uint16Array((mine.length + 1) * width);
  for (let row = mine.length - 1; row >= 0; row -= 1)
    for (let column = theirs.length - 1; column >= 0; column -= 1)
      lengths[row * width + column] =
        mine[row] === theirs[column]
          ? lengths[(row + 1) * width + column + 1] + 1
          : Math.max(lengths[(row + 1) * width + column], lengths[row * width + column + 1]);
  /** @type {Set<number>} */
  const shared = new Set();
  for (let row = 0, column = 0; row < mine.length && column < theirs.length; ) {
    if (mine[row] === theirs[column]) {
      shared.add(row);
      row += 1;
      column += 1;
    } else if (lengths[(row + 1) * width + column] >= lengths[row * width + column + 1]) row += 1;
    else column += 1;
  }
  return shared;
}
