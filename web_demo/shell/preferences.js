// @ts-check
/** Small things that a person prefers, kept in the browser where it keeps anything. */

/** The names of preferences. */
export const SINGLE_KEYS = "single keys";
export const HEARD = "whole answers are heard";

/** @param {string} name @param {boolean} usual */
export function preferred(name, usual) {
  try {
    const kept = localStorage.getItem(name);
    return kept === null ? usual : kept === "yes";
  } catch {
    return usual;
  }
}

/** @param {string} name @param {boolean} is */
export function prefer(name, is) {
  try {
    localStorage.setItem(name, is ? "yes" : "no");
  } catch {
    // then until the page is left
  }
}
