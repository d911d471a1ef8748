// @ts-check
/** A block of code with its language, a button that copies it, and colours, which are loaded with the first one. */

import { copyText, find, make } from "../shell/dom.js";

const COPIED_MS = 1500;

/** Return a block of code; its text may be changed. @param {string} language @param {string} text */
export function codeElement(language, text) {
  const name = make("span", { class: "language" }, language || "code");
  const button = make("button", { type: "button", class: "quiet", click: copy }, "Copy");
  const code = make("code", { "data-language": language || undefined }, text);
  return make("div", { class: "code" }, make("p", { class: "code-bar" }, name, button), make("pre", { tabindex: 0 }, code));
}

/** @param {{currentTarget: HTMLElement}} event */
async function copy({ currentTarget: button }) {
  if (!(await copyText(find("code", /** @type {Element} */ (button.closest(".code"))).textContent))) return;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
}

/** @typedef {ReturnType<typeof coloursOf>} Colours */

/** Return what colours an element of code that has its language. @param {HTMLElement} code */
export function coloursOf(code) {
  /** @type {ReturnType<typeof import("./colours.js").createColours> | null} */
  let made = null;
  let over = false;
  let gone = false;
  const language = code.dataset.language;
  if (language)
    import("./colours.js").then(({ createColours }) => {
      if (gone) return;
      made = createColours(/** @type {Text} */ (code.firstChild), language);
      made.follow(over);
    }, () => {}); // it has none
  return {
    /** @param {boolean} ended whether the code grows no more */
    follow(ended) {
      over = ended;
      made?.follow(ended);
    },
    /** Give the colours back. */
    clear() {
      gone = true;
      made?.clear();
    },
  };
}

/** Return a block of code that may grow. @param {string} language */
export function createCode(language) {
  const root = codeElement(language, "");
  const code = find("code", root);
  const text = code.firstChild;
  const { follow, clear } = coloursOf(code);
  return {
    root,
    /** @param {string} given all of it so far @param {boolean} ended */
    show(given, ended) {
      if (given.startsWith(text.data)) text.appendData(given.slice(text.length));
      else text.data = given;
      follow(ended);
    },
    clear,
  };
}
