// @ts-check
/** Says things to screen readers, one after the other. */

import { find } from "./dom.js";

const AFTER_MS = 80; // for which the region must have been empty, or some readers say nothing

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {string[]} */
let waiting = [];

/** @param {string} text */
export function say(text) {
  const region = find("#spoken");
  waiting.push(text);
  region.textContent = "";
  clearTimeout(timer);
  timer = setTimeout(() => {
    region.textContent = waiting.join(" ");
    waiting = [];
  }, AFTER_MS);
}
