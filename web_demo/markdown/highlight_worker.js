// @ts-check
/** The thread that reads code for its colours; it answers with ranges, and never with markup. */

const CODE = "../vendor/highlight/highlight.min.js";
const loading = import(CODE); // not by a literal, so that its types are not read

/** The names of colours, by the first part of highlight.js's scopes. @type {Record<string, string>} */
const COLOURS = {
  keyword: "keyword", literal: "keyword", built_in: "name", type: "name", class: "name", title: "name",
  tag: "keyword", name: "keyword", attr: "name", attribute: "name", "selector-tag": "keyword",
  string: "string", regexp: "string", symbol: "string", char: "string", template: "string",
  number: "number", comment: "comment", doctag: "comment", meta: "comment", quote: "comment",
  addition: "string", deletion: "number", variable: "name", section: "keyword",
};

onmessage = async ({ data: [number, code, language] }) => {
  const { default: highlight } = await loading;
  /** @type {[number, number, string][]} */
  const spans = [];
  let at = 0;

  /** @param {any} node @param {string} colour */
  function walk(node, colour) {
    if (typeof node === "string") {
      if (colour) spans.push([at, at + node.length, colour]);
      at += node.length;
      return;
    }
    const own = COLOURS[node.scope?.split(".")[0]] ?? colour;
    for (const child of node.children) walk(child, own);
  }

  if (highlight.getLanguage(language)) {
    const read = /** @type {any} */ (highlight.highlight(code, { language, ignoreIllegals: true }));
    walk(read._emitter.rootNode, "");
  }
  postMessage([number, spans]);
};
