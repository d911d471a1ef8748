// @ts-check
/** The colours of code, by the Highlight API. */

const WORKER = "/markdown/highlight_worker.js";
const EVERY_MS = 250; // between two readings of code that still grows
const MOST = 60_000; // characters; longer code has no colours

/** @type {Worker | null} */
let worker = null;
let asked = 0;
/** What to do with the answers of the worker, by the number of the question. @type {Map<number, (spans: Span[]) => void>} */
const answers = new Map();

/** @typedef {[number, number, string]} Span begin, end, and the name of its colour */

/** @param {string} code @param {string} language @param {(spans: Span[]) => void} then */
function spansOf(code, language, then) {
  if (!worker) {
    worker = new Worker(WORKER, { type: "module" });
    worker.onmessage = ({ data: [number, spans] }) => {
      answers.get(number)?.(spans);
      answers.delete(number);
    };
    worker.onerror = () => answers.clear();
  }
  asked += 1;
  answers.set(asked, then);
  worker.postMessage([asked, code, language]);
}

/** @param {string} name @returns {any} */
function highlightOf(name) {
  const { highlights } = /** @type {any} */ (CSS);
  const made = highlights.get(name) ?? new /** @type {any} */ (globalThis).Highlight();
  highlights.set(name, made);
  return made;
}

/** Return what colours the code in a text. @param {Text} text @param {string} language */
export function createColours(text, language) {
  /** @type {[any, StaticRange][]} */
  let coloured = [];
  let at = 0; // when its colours were asked for
  let waits = false;

  /** @param {boolean} ended */
  function colour(ended) {
    // With forced colours, what is coloured would look selected.
    if (!("highlights" in CSS) || text.length > MOST || matchMedia("(forced-colors: active)").matches) return;
    if (waits || (!ended && performance.now() - at < EVERY_MS)) return;
    at = performance.now();
    waits = true;
    const { data } = text;
    spansOf(data, language, (spans) => {
      waits = false;
      paint(spans);
      if (ended && data !== text.data) colour(true);
    });
  }

  /** @param {Span[]} spans */
  function paint(spans) {
    clear();
    coloured = spans
      .filter(([, end]) => end <= text.length)
      .map(([startOffset, endOffset, scope]) => {
        const range = new StaticRange({ startContainer: text, startOffset, endContainer: text, endOffset });
        const highlight = highlightOf(`code-${scope}`);
        highlight.add(range);
        return [highlight, range];
      });
  }

  function clear() {
    for (const [highlight, range] of coloured) highlight.delete(range);
    coloured = [];
  }

  let over = false;
  return {
    /** Colour the text as it is now. @param {boolean} ended whether it grows no more */
    follow(ended) {
      if (ended && !over) {
        waits = false;
        colour(true);
      } else colour(false);
      over = ended;
    },
    clear,
  };
}
