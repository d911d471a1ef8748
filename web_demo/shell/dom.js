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

/** Whether a key is part of composing a word; Safari tells by its code alone. @param {KeyboardEvent} event */
export const composes = ({ isComposing, keyCode }) => isComposing || keyCode === 229;

/** Whether a key is an Escape that is of no other use. @param {KeyboardEvent} event */
export function escapes(event) {
  const { type, value } = /** @type {any} */ (event.target);
  return event.key === "Escape" && !event.defaultPrevented && !composes(event) && !(type === "search" && value);
}

/** Stylesheets that are being loaded, or are in effect. @type {Map<string, Promise<void>>} */
const styles = new Map();

/** Resolves when a stylesheet of the page is in effect, or can't be loaded. @param {string} path @returns {Promise<void>} */
export function useStyle(path) {
  const known = styles.get(path) ?? (find(`link[href="${path}"]`) ? Promise.resolve() : loading(path));
  styles.set(path, known);
  return known;
}

/** @param {string} path @returns {Promise<void>} */
function loading(path) {
  return new Promise((resolve) => {
    const failed = () => {
      link.remove();
      styles.delete(path); // so that the next use tries again
      resolve();
    };
    const link = make("link", { rel: "stylesheet", href: path, load: () => resolve(), error: failed });
    document.head.append(link);
  });
}

/** Copy a text; resolves to whether that was done. @param {string} text */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  // A page of another machine without https has no clipboard, but may copy what is selected.
  const before = document.activeElement;
  const field = make("textarea", { class: "unseen" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (before instanceof HTMLElement) before.focus();
  return done;
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
