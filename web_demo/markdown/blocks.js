// @ts-check
/**
 * Splits Markdown into blocks while it is received. A block that has ended never changes, so only the
 * open one must be read again; how the text was cut into chunks makes no difference.
 */

/**
 * `text` is the block's source; of a fence it is the code alone. `open` says that more of it may follow.
 * @typedef {{kind: "text" | "list" | "indented" | "heading" | "rule", text: string, open: boolean}
 *   | {kind: "fence", text: string, language: string, open: boolean}
 *   | {kind: "math", text: string, open: boolean}} Block
 * @typedef {{
 *   kind: Block["kind"], lines: string[], language: string, fence: string, indent: number, close: string,
 * }} Draft the open block: its lines so far, and what ends it
 */

const FENCE = /^( {0,3})(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}#{1,6}([ \t]|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})$/;
const ITEM = /^ {0,3}([-*+]|\d{1,9}[.)])([ \t]|$)/;
/** An item that may end a paragraph: it has a text, and a number must be the first one. */
const INTERRUPTING_ITEM = /^ {0,3}([-*+]|1[.)])[ \t]+\S/;
const QUOTE = /^ {0,3}>/;
const INDENTED = /^( {4}|\t)/;
const MATH = /^ {0,3}(\$\$|\\\[)/;
const MATH_ENDS = { $$: "$$", "\\[": "\\]" };

/** Return a splitter of one text. */
export function createSplitter() {
  /** @type {Block[]} */
  const closed = [];
  /** @type {Draft | null} */
  let open = null;
  let partial = ""; // the last line, which has no end yet

  return {
    /** @param {string} text */
    write(text) {
      const lines = (partial + text).split("\n");
      partial = /** @type {string} */ (lines.pop());
      for (const line of lines) open = read(open, line.replace(/\r$/, ""), closed);
    },
    /** The blocks that have ended; the list only grows. */
    closed,
    /** Return the blocks that may still change, the last line included. @returns {Block[]} */
    open() {
      /** @type {Block[]} */
      const blocks = [];
      const copy = open && { ...open, lines: [...open.lines] };
      const last = partial ? read(copy, partial, blocks) : copy;
      return last ? [...blocks, blockOf(last, true)] : blocks;
    },
    /** End the text, so that all of its blocks are in `closed`. */
    end() {
      if (partial) open = read(open, partial, closed);
      partial = "";
      if (open) closed.push(blockOf(open, false));
      open = null;
    },
  };
}

/**
 * Read a line; add the blocks that end by it to `closed`, and return the open one.
 * @param {Draft | null} open @param {string} line @param {Block[]} closed
 * @returns {Draft | null}
 */
function read(open, line, closed) {
  if (open && continues(open, line)) return grown(open, line, closed);
  if (open) closed.push(blockOf(open, false));
  return begun(line, closed);
}

/** Whether a line belongs to the open block. @param {Draft} open @param {string} line */
function continues({ kind, lines }, line) {
  if (kind === "fence" || kind === "math") return true;
  const blank = !line.trim();
  const indented = /^[ \t]/.test(line);
  if (kind === "indented") return blank || INDENTED.test(line);
  if (kind === "list") {
    if (blank || indented) return true;
    if (ITEM.test(line) && !RULE.test(line)) return true;
    return Boolean(lines.at(-1)?.trim()) && !interrupts(line);
  }
  if (blank) return false;
  return lines.every((one) => QUOTE.test(one)) ? QUOTE.test(line) || !interrupts(line) : !interrupts(line) && !QUOTE.test(line);
}

/** Whether a line ends a paragraph without a blank line between. @param {string} line */
function interrupts(line) {
  const rule = RULE.test(line) && !line.includes("-"); // dashes below a paragraph make it a heading
  return FENCE.test(line) || HEADING.test(line) || MATH.test(line) || rule || INTERRUPTING_ITEM.test(line);
}

/**
 * Add a line to the open block, which may end by it.
 * @param {Draft} open @param {string} line @param {Block[]} closed
 */
function grown(open, line, closed) {
  if (open.kind === "fence") {
    const mark = line.trim();
    const ends = mark.startsWith(open.fence) && mark.replaceAll(open.fence[0], "") === "" && !INDENTED.test(line);
    if (!ends) open.lines.push(unindented(line, open.indent));
    if (ends) closed.push(blockOf(open, false));
    return ends ? null : open;
  }
  open.lines.push(line);
  if (open.kind !== "math" || !line.includes(open.close)) return open;
  closed.push(blockOf(open, false));
  return null;
}

/** Begin a block, which may end at once. @param {string} line @param {Block[]} closed @returns {Draft | null} */
function begun(line, closed) {
  if (!line.trim()) return null;
  const draft = { lines: [line], language: "", fence: "", indent: 0, close: "" };
  const [, indent = "", fence = "", info = ""] = FENCE.exec(line) ?? [];
  if (fence && !(fence[0] === "`" && info.includes("`")))
    return { ...draft, kind: "fence", lines: [], language: info.trim().split(/\s/)[0], fence, indent: indent.length };
  const math = MATH.exec(line);
  if (math) {
    const close = MATH_ENDS[/** @type {"$$"} */ (math[1])];
    const rest = line.slice(math[0].length);
    if (!rest.includes(close)) return { ...draft, kind: "math", close };
    if (rest.trimEnd().endsWith(close) && rest.indexOf(close) === rest.lastIndexOf(close)) {
      closed.push(blockOf({ ...draft, kind: "math", close }, false));
      return null;
    }
    return { ...draft, kind: "text" };
  }
  const kind = HEADING.test(line) ? "heading" : RULE.test(line) ? "rule" : null;
  if (kind) {
    closed.push(blockOf({ ...draft, kind }, false));
    return null;
  }
  if (ITEM.test(line)) return { ...draft, kind: "list" };
  return { ...draft, kind: INDENTED.test(line) ? "indented" : "text" };
}

/** @param {Draft} draft @param {boolean} open @returns {Block} */
function blockOf({ kind, lines, language, close }, open) {
  const text = lines.join("\n");
  if (kind === "fence") return { kind, text, language, open };
  if (kind === "math") return { kind, text: insideOf(text, close), open };
  return { kind, text, open };
}

/** Return a formula without the signs around it. @param {string} text @param {string} close */
function insideOf(text, close) {
  const inner = text.trimStart().slice(2);
  const end = inner.indexOf(close);
  return (end < 0 ? inner : inner.slice(0, end)).trim();
}

/** Return a line without up to as many spaces as its fence has before it. @param {string} line @param {number} most */
function unindented(line, most) {
  const spaces = /** @type {RegExpExecArray} */ (/^ */.exec(line))[0].length;
  return line.slice(Math.min(spaces, most));
}
