// @ts-check
/** Formulas as MathML, by temml, which is loaded when the first one is written. */

import { make } from "../shell/dom.js";

const CODE = "/vendor/temml/temml.min.js";

/** @type {any} */
let temml = null;
/** @type {Promise<void> | null} */
let loading = null;

/** Return an element with a formula; until temml is there, with its source. @param {string} source @param {boolean} block */
export function formula(source, block) {
  const made = make("span", { class: block ? "formula block" : "formula" });
  made.dataset.source = source;
  if (temml) render(made, source, block);
  else {
    made.append(make("code", {}, source));
    loading ??= load();
    loading.then(() => temml && render(made, source, block));
  }
  return made;
}

/** @returns {Promise<void>} */
function load() {
  return new Promise((resolve) => {
    const script = make("script", {
      src: CODE,
      load: () => resolve((temml = /** @type {any} */ (globalThis).temml)),
      error: () => resolve(),
    });
    document.head.append(script);
  });
}

/** @param {HTMLElement} made @param {string} source @param {boolean} block */
function render(made, source, block) {
  const holder = make("span");
  try {
    temml.render(source, holder, { displayMode: block, throwOnError: true, trust: false, maxExpand: 200 });
  } catch {
    holder.replaceChildren(make("code", {}, source)); // it may not be finished
  }
  made.replaceChildren(...holder.childNodes);
}
