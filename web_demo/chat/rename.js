// @ts-check
/** The field in which a person changes the title of a conversation. */

import { composes, make } from "../shell/dom.js";

/**
 * Show the field in place of a link until it is left; resolves to the title, which is the one before if nothing was given.
 * The focus goes back to the link where a key has ended it.
 * @param {HTMLElement} link @param {string} title @returns {Promise<string>}
 */
export function titleOf(link, title) {
  return new Promise((resolve) => {
    const field = make("input", { value: title, "aria-label": "Title", maxlength: 200, blur: done, keydown: onKey });
    let over = false;

    /** @param {KeyboardEvent} event */
    function onKey(event) {
      if (composes(event)) return;
      if (event.key === "Escape") field.value = title;
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      done();
    }

    function done() {
      if (over) return;
      over = true;
      const focused = document.activeElement === field;
      field.replaceWith(link);
      if (focused) link.focus();
      resolve(field.value.trim() || title);
    }

    link.replaceWith(field);
    field.focus();
    field.select();
  });
}
