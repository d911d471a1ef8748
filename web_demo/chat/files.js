// @ts-check
/** Conversations as files that a person keeps: exported, and imported again. */

import { make } from "../shell/dom.js";
import { fromFile, toJson, toMarkdown } from "../store/exchange.js";
import { newId } from "./talk.js";

/** @typedef {import("../store/database.js").Store} Store */

/** @param {Store} store @param {import("../store/tree.js").Conversation} talk */
export async function exportOne(store, talk) {
  save(`${fileName(talk.title)}.md`, "text/markdown", toMarkdown(talk, await store.turns(talk.id)));
}

/** @param {Store} store */
export async function exportAll(store) {
  save("conversations.json", "application/json", toJson(await store.conversations(), await store.turns()));
}

/** Keep the conversations of a file; resolves to what a person is told of it. @param {Store} store @param {File} file */
export async function imported(store, file) {
  try {
    const { conversations, turns } = fromFile(await file.text(), newId, Date.now());
    await store.save(conversations, turns);
    return `Imported ${conversations.length} ${conversations.length === 1 ? "conversation" : "conversations"}.`;
  } catch (error) {
    return `“${file.name}”: ${/** @type {Error} */ (error).message}.`;
  }
}

/** @param {string} title */
function fileName(title) {
  return title.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
}

/** Offer a text as a file. @param {string} name @param {string} type @param {string} text */
function save(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
