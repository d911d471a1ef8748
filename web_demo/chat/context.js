// @ts-check
/** How much of what the model can read a conversation takes. */

/** @typedef {import("../store/tree.js").Turn} Turn */

import { textOf } from "../store/tree.js";

const CHARACTERS = 4; // of a token, about
const NEARLY = 0.85; // of the context; then it is said

/**
 * Return the tokens of a conversation with what is being typed; `exact` where the server has counted all of them.
 * @param {readonly Turn[]} path @param {string} draft
 */
export function contextOf(path, draft) {
  let counted = 0;
  let characters = draft.trim().length;
  for (let index = path.length - 1; index >= 0 && !counted; index -= 1) {
    counted = path[index].tokens ?? 0;
    if (!counted) characters += textOf(path[index]).length;
  }
  return { tokens: counted + Math.ceil(characters / CHARACTERS), exact: characters === 0 };
}

/**
 * @param {HTMLElement} root @param {readonly Turn[]} path @param {string} draft @param {number | null} window the most tokens that
 *   the model reads
 */
export function showContext(root, path, draft, window) {
  const { tokens, exact } = contextOf(path, draft);
  root.hidden = !window || !tokens;
  if (!window) return;
  const share = Math.min(1, tokens / window);
  const said = `${exact ? "" : "about "}${tokens.toLocaleString("en")} of ${window.toLocaleString("en")} tokens`;
  root.textContent = `${exact ? "" : "≈ "}${tokens.toLocaleString("en")} / ${window.toLocaleString("en")}`;
  root.style.setProperty("--share", `${100 * share}%`);
  root.dataset.full = share > NEARLY ? "nearly" : "no";
  root.ariaLabel = `The conversation takes ${said} that the model reads`;
  root.title = `${root.ariaLabel}.${share > NEARLY ? " Begin a new one soon." : ""}`;
}
