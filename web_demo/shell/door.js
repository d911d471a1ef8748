// @ts-check
/** The field for a token, where a gateway wants one. It stays until a token is accepted. */

import { find } from "./dom.js";

const NOT_AUTHENTICATED = 4401;
const KEY = "token";

/** @param {HTMLElement} root @param {(token: string) => void} enter tries a token */
export function createDoor(root, enter) {
  const input = find("input", root);
  const button = find("button", root);
  let token = inAddress() ?? kept();
  find("form", root).addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = input.value.trim();
    token = given;
    keep(given);
    button.disabled = true;
    enter(given);
  });

  return {
    /** The token of this tab, null while it has none. */
    token: () => token,
    /** Ask for a token if a connection was closed for want of one. Returns whether it was. @param {number} [closeCode] */
    refused(closeCode) {
      if (closeCode !== NOT_AUTHENTICATED) return false;
      find("#door-reason").textContent = token
        ? "This token is wrong, or it has expired."
        : "This gateway answers only those who have a token.";
      root.hidden = false;
      button.disabled = false;
      input.setAttribute("aria-invalid", String(token !== null));
      input.focus();
      input.select();
      return true;
    },
    opened() {
      root.hidden = true;
      input.value = "";
    },
  };
}

/** Return the token of the address, and remove it there. */
function inAddress() {
  const found = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get(KEY);
  if (!found) return null;
  keep(found);
  history.replaceState(null, "", location.pathname + location.search);
  return found;
}

function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // this browser keeps nothing
  }
}

/** @param {string} token */
function keep(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // then it is asked for again after a reload
  }
}
