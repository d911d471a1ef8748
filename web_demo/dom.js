// @ts-check
/** Finding elements of the page, and making new ones from its templates. */

/** @param {string} selector @param {ParentNode} [inside] */
export const find = (selector, inside = document) =>
  /** @type {any} */ (inside.querySelector(selector));

/** A copy of what a template holds. @param {string} template its selector */
export const copyOf = (template) => find(template).content.firstElementChild.cloneNode(true);
