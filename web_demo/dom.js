// @ts-check
/** Finds elements of the page, and copies its templates. */

/** @param {string} selector @param {ParentNode} [inside] */
export const find = (selector, inside = document) =>
  /** @type {any} */ (inside.querySelector(selector));

/** Return a copy of a template's element. @param {string} template its selector */
export const copyOf = (template) => find(template).content.firstElementChild.cloneNode(true);
