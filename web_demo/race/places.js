// @ts-check
/** The text of an element with its places, so that a part of it can be marked. */

/** @typedef {{node: Text, from: number, to: number}} Place a node's characters in the text */

/** What text stands in apart from its neighbours. */
const BLOCKS = "p, li, h1, h2, h3, h4, h5, h6, td, th, pre, blockquote, div";

/** @param {Element} root @returns {{text: string, places: Place[]}} */
export function textIn(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  /** @type {Place[]} */
  const places = [];
  let text = "";
  /** @type {Element | null | undefined} */
  let block;
  while (walker.nextNode()) {
    const node = /** @type {Text} */ (walker.currentNode);
    if (node.parentElement?.closest(".code-bar, math")) continue;
    const own = node.parentElement?.closest(BLOCKS);
    if (text && own !== block) text += "\n";
    block = own;
    places.push({ node, from: text.length, to: text.length + node.data.length });
    text += node.data;
  }
  return { text, places };
}

/** Return the ranges of spans of the text, which are in order. @param {Place[]} places @param {import("./differences.js").Span[]} spans */
export function rangesOf(places, spans) {
  let index = 0;
  return spans.flatMap(({ from, to }) => {
    while (index < places.length && places[index].to <= from) index += 1;
    const first = places[index];
    let last = index;
    while (last + 1 < places.length && places[last + 1].from < to) last += 1;
    if (!first) return [];
    const range = new Range();
    range.setStart(first.node, Math.max(0, from - first.from));
    range.setEnd(places[last].node, Math.min(to, places[last].to) - places[last].from);
    return [range];
  });
}
