// @ts-check
/** Makes elements of Markdown's tokens, each by its name; text is only ever text. */

import { make } from "../shell/dom.js";
import { codeElement } from "./code.js";
import { safeAddress, tokensOf, unescaped } from "./lexer.js";
import { formula } from "./math.js";

/** @typedef {any} Token one of marked's, or of lexer.js */

const DEEPEST = 100; // lists and quotes in each other; a thousand end the page in some browsers
let depth = 0;

/**
 * Return the elements of a block that is no fence.
 * @param {import("./blocks.js").Block} block
 */
export function elementsOf(block) {
  if (block.kind === "math") return [formula(block.text, true)];
  depth = 0;
  try {
    return blocks(tokensOf(block.text));
  } catch {
    return [make("p", {}, block.text.trimEnd())]; // it is nested too deeply
  }
}

/** @param {Token} token @returns {Node | null} */
function blockElement(token) {
  switch (token.type) {
    case "space":
      return null;
    case "heading":
      return make(/** @type {"h3"} */ (`h${Math.min(6, token.depth + 2)}`), {}, ...inline(token.tokens));
    case "hr":
      return make("hr");
    case "blockquote":
      return make("blockquote", {}, ...blocks(token.tokens));
    case "list":
      return listElement(token);
    case "table":
      return tableElement(token);
    case "code":
      return codeElement(token.lang?.split(/\s/)[0] ?? "", token.text);
    case "paragraph":
      return make("p", {}, ...inline(token.tokens));
    case "text": // of an item without blank lines
      return fragmentOf(inline(token.tokens ?? [token]));
    case "checkbox":
      return checkbox(token.checked);
    default:
      return document.createTextNode(token.raw ?? "");
  }
}

/** @param {boolean} checked */
const checkbox = (checked) => make("input", { type: "checkbox", disabled: true, checked, "aria-label": checked ? "Done" : "To do" });

/** @param {Token[]} tokens */
function blocks(tokens) {
  depth += 1;
  if (depth > DEEPEST) throw new RangeError();
  const made = tokens.map(blockElement).filter((one) => one !== null);
  depth -= 1;
  return made;
}

/** @param {Node[]} nodes */
function fragmentOf(nodes) {
  const fragment = document.createDocumentFragment();
  fragment.append(...nodes);
  return fragment;
}

/** @param {Token} token */
function listElement({ ordered, start, items }) {
  const made = items.map((/** @type {Token} */ { tokens, task }) =>
    make("li", { class: task ? "task" : undefined }, ...blocks(tokens)),
  );
  return ordered ? make("ol", { start: start === 1 ? undefined : start }, ...made) : make("ul", {}, ...made);
}

/** @param {Token} token */
function tableElement({ header, rows }) {
  const row = (/** @type {Token[]} */ cells) => make("tr", {}, ...cells.map(cellElement));
  const table = make("table", {}, make("thead", {}, row(header)), make("tbody", {}, ...rows.map(row)));
  return make("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, table);
}

/** @param {Token} cell */
function cellElement({ header, align, tokens }) {
  const scope = header ? "col" : undefined;
  return make(header ? "th" : "td", { scope, class: align ? `to-${align}` : undefined }, ...inline(tokens));
}

/** @param {Token[]} tokens @returns {Node[]} */
function inline(tokens) {
  return tokens.map(inlineElement);
}

/** @param {Token} token @returns {Node} */
function inlineElement(token) {
  switch (token.type) {
    case "strong":
      return make("strong", {}, ...inline(token.tokens));
    case "em":
      return make("em", {}, ...inline(token.tokens));
    case "del":
      return make("del", {}, ...inline(token.tokens));
    case "codespan":
      return make("code", {}, token.text);
    case "br":
      return document.createTextNode("\n"); // the page keeps line ends
    case "math":
      return formula(token.text, false);
    case "link":
      return linkTo(token.href, inline(token.tokens), token.raw);
    case "image":
      return linkTo(token.href, [unescaped(token.text) || "image"], token.raw);
    case "checkbox":
      return checkbox(token.checked);
    default:
      return document.createTextNode(token.type === "escape" ? token.text : unescaped(token.text ?? token.raw));
  }
}

/**
 * Return a link, or its source where it leads to what a link may not lead to.
 * @param {string} address @param {(Node | string)[]} children @param {string} source
 */
function linkTo(address, children, source) {
  const href = safeAddress(address);
  if (href === null) return document.createTextNode(source);
  return make("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}
