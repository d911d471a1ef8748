// @ts-check
/** Finds elements of the page, makes new ones, and copies its templates. */

/** @param {string} selector @param {ParentNode} [inside] */
export const find = (selector, inside = document) =>
  /** @type {any} */ (inside.querySelector(selector));

/** Return a copy of a template's element. @param {string} template its selector */
export const copyOf = (template) => find(template).content.firstElementChild.cloneNode(true);

/**
 * Return a new element. Attributes that are false or undefined are left out; functions are listeners, by
 * the name of their event.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | undefined | ((event: any) => void)>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** Resolves when a stylesheet of the page is in effect. @param {string} path @returns {Promise<void>} */
export function useStyle(path) {
  if (find(`link[href="${path}"]`)) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => resolve();
    document.head.append(make("link", { rel: "stylesheet", href: path, load: done, error: done }));
  });
}

/** Return a picture of one line, @param {string} path */
export function icon(path) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("viewBox", "0 0 24 24");
  made.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  made.append(line);
  return made;
}
