// @ts-check
/**
 * Finds where the characters of a Markdown source stand in the elements that were made of it. What Markdown has used
 * up, such as its signs, stands nowhere. No place is looked for in formulas.
 */

/**
 * A run of characters: `length` of them from `source` on in the source, from `offset` on in a node.
 * @typedef {{node: Text, offset: number, source: number, length: number}} Run
 */

const FAR = 4000; // characters within which a whole text is looked for: an address may be before it
const NEAR = 16; // characters within which one character is looked for

/**
 * Add the runs of an element to `runs`; return where in the source the next element may begin.
 * @param {Node} root @param {string} source @param {number} from @param {Run[]} runs
 */
export function addRuns(root, source, from, runs) {
  let at = from;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, {
    acceptNode: (node) =>
      node instanceof Text
        ? NodeFilter.FILTER_ACCEPT
        : /** @type {Element} */ (node).matches(".code-bar, .formula, math")
          ? NodeFilter.FILTER_REJECT
          : NodeFilter.FILTER_SKIP,
  });
  while (walker.nextNode()) {
    const node = /** @type {Text} */ (walker.currentNode);
    if (node.data.trim()) at = addText(node, source, at, runs);
  }
  return at;
}

/** @param {Text} node @param {string} source @param {number} from @param {Run[]} runs @returns {number} */
function addText(node, source, from, runs) {
  const { data } = node;
  const found = source.indexOf(data, from);
  if (found >= 0 && found - from <= FAR) {
    runs.push({ node, offset: 0, source: found, length: data.length });
    return found + data.length;
  }
  return addByCharacters(node, source, from, runs);
}

/** Find a text that isn't in the source as it is, because it has characters that were written otherwise there. @param {Text} node @param {string} source @param {number} from @param {Run[]} runs */
function addByCharacters(node, source, from, runs) {
  let at = from;
  /** @type {Run | null} */
  let open = null;
  for (const [offset, sign] of [...node.data].entries()) {
    if (!open && !sign.trim()) continue;
    const found = source.indexOf(sign, at);
    if (found < 0 || found - at > (open ? NEAR : FAR)) continue; // an address may be before the first one
    if (open && open.source + open.length === found && open.offset + open.length === offset) open.length += 1;
    else {
      open = { node, offset, source: found, length: 1 };
      runs.push(open);
    }
    at = found + 1;
  }
  return at;
}

/**
 * Return the range of a part of the source, null if none of it is shown.
 * @param {Run[]} runs in order @param {number} begin @param {number} end
 * @param {number} [first] the index of the first run that may have to do with it
 */
export function rangeOf(runs, begin, end, first = 0) {
  /** @type {StaticRangeInit | null} */
  let range = null;
  let index = first;
  while (index < runs.length && runs[index].source + runs[index].length <= begin) index += 1;
  const from = index;
  for (; index < runs.length && runs[index].source < end; index += 1) {
    const { node, offset, source, length } = runs[index];
    const low = Math.max(begin, source) - source + offset;
    const high = Math.min(end, source + length) - source + offset;
    range ??= { startContainer: node, startOffset: low, endContainer: node, endOffset: high };
    range.endContainer = node;
    range.endOffset = high;
  }
  return { range, from };
}
