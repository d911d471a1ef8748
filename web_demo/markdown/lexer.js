// @ts-check
/** Reads one block of Markdown: marked's lexer, with formulas, and without HTML. */

import { Marked } from "../vendor/marked/marked.esm.js";

const FORMULA = /^(?:\$\$([^$]+?)\$\$|\\\((.+?)\\\)|\$(?![\s\d$])((?:\\.|[^$\n\\])*?[^\s$\\])\$(?!\d))/s;
const FORMULA_BEGINS = /\$|\\\(/;

// HTML is text like any other, and a definition of a link could change blocks that were read before.
const marked = new Marked({
  tokenizer: { html: () => undefined, tag: () => undefined, def: () => undefined },
  extensions: [
    {
      name: "math",
      level: "inline",
      start: (source) => FORMULA_BEGINS.exec(source)?.index,
      tokenizer(source) {
        const found = FORMULA.exec(source);
        return found ? { type: "math", raw: found[0], text: found[1] ?? found[2] ?? found[3] } : undefined;
      },
    },
  ],
});

/** Return a block's tokens. @param {string} text @returns {any[]} */
export const tokensOf = (text) => marked.lexer(text);

/** The named references that models write; others stay as they are. @type {Record<string, string>} */
const NAMED = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–",
  copy: "©", times: "×", rarr: "→", larr: "←", deg: "°", euro: "€", middot: "·", bull: "•", ensp: "\u2002",
};

/** Return a text with its character references replaced. @param {string} text */
export function unescaped(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z]{2,8}));/gi, (whole, decimal, hex, name) => {
    if (name) return NAMED[name] ?? whole;
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}

const SCHEMES = ["http:", "https:", "mailto:"];

/** Return the address that a link may lead to, null if it may not. @param {string} text */
export function safeAddress(text) {
  try {
    const url = new URL(unescaped(text));
    return SCHEMES.includes(url.protocol) ? url.href : null;
  } catch {
    return null; // addresses within the page's own site are not for a model to know
  }
}
