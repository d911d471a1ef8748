// @ts-check
/** What is not sent yet. Each tab keeps its own; what a closed tab has left comes back in another one. */

import { textOf } from "../store/tree.js";
import { attachedTo, bytesOf, contentOf } from "./attachments.js";
import { own } from "./going_on.js";
import { newId } from "./talk.js";

/** @typedef {import("../store/database.js").Store} Store */
/** @typedef {import("./pane.js").Message} Message */
/**
 * `text` is in the field, `waits` is the message that waits for the running answer; `talk` is a conversation's id, null of a new one.
 * @typedef {{talk: string | null, tab: string, text: string, waits: string | import("../client.js").Part[]}} Draft
 */

const DRAFTS = "drafts"; // all of them, the newest last

const tab = newId();
own(lockOf(tab)); // for as long as the page is there

/** @param {string} name of a tab */
function lockOf(name) {
  return `tab ${name}`;
}

/**
 * Keep what is not sent, in the place of what this tab has kept of the conversation before.
 * @param {Store} store @param {string | null} talk @param {string} text @param {Message} waits
 */
export function keep(store, talk, text, waits) {
  const content = contentOf(waits.files, waits.text);
  return store.edit("values", DRAFTS, (/** @type {Draft[]} */ all = []) => [
    ...all.filter((one) => one.talk !== talk || one.tab !== tab),
    ...(text || content ? [{ talk, tab, text, waits: content }] : []),
  ]);
}

/**
 * Return what is not sent of a conversation: of this tab, or of one that is closed, which has it no more.
 * @param {Store} store @param {string | null} talk @param {() => boolean} wanted whether it still is, once it is found
 * @returns {Promise<{text: string, waits: Message} | null>} null if there is none
 */
export async function take(store, talk, wanted) {
  /** @type {Draft[]} */
  const all = (await store.value(DRAFTS)) ?? [];
  const found = all.filter((one) => one.talk === talk).reverse();
  const mine = found.find((one) => one.tab === tab);
  if (mine) return wanted() ? given(mine) : null;
  for (const draft of found) {
    const free = await own(lockOf(draft.tab));
    if (!free) continue;
    const taken = wanted() && (await takeOver(store, draft));
    free();
    if (taken) return given(draft);
  }
  return null;
}

/** @param {Draft} draft */
function given({ text, waits }) {
  const files = attachedTo(waits).map((one) => ({ ...one, bytes: bytesOf(one.part) }));
  return { text, waits: { text: textOf({ content: waits }), files } };
}

/** Make a draft of a closed tab one of this tab's; resolves to whether it was still there. @param {Store} store @param {Draft} draft */
async function takeOver(store, { talk, tab: from }) {
  let taken = false;
  await store.edit("values", DRAFTS, (/** @type {Draft[]} */ all = []) =>
    all.map((one) => {
      if (one.talk !== talk || one.tab !== from) return one;
      taken = true;
      return { ...one, tab };
    }),
  );
  return taken;
}
