// @ts-check
/** One conversation: its turns in memory, which of them are shown, and each change of it kept. */

import { bytesOf } from "./attachments.js";
import { createTree, messagesOf, titleOf } from "../store/tree.js";

/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("../store/tree.js").Conversation} Conversation */
/** @typedef {import("../store/database.js").Store} Store */

let newestTime = 0;

/** Return a time that no other turn of this page has, in milliseconds. */
function now() {
  newestTime = Math.max(Date.now(), newestTime + 1);
  return newestTime;
}

export function newId() {
  return `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 10)}`;
}

/**
 * @param {Store} store
 * @param {() => void} onchange called when the list of conversations may have changed
 * @param {(error: Error) => void} onfail called when a change could not be kept
 */
export function createTalk(store, onchange, onfail) {
  /** @type {Conversation | null} */
  let conversation = null;
  let tree = createTree();
  /** How large turns are as messages, with what they had then. @type {WeakMap<Turn, {content: unknown, messages: unknown, bytes: number}>} */
  const sizes = new WeakMap();

  /**
   * Keep the conversation and a turn. Another tab may have given it a name, or have removed it; then it is kept as a
   * whole, or not at all.
   * @param {Turn[]} changed @param {boolean} [whole]
   */
  async function save(changed, whole) {
    if (!conversation) return;
    const mine = conversation;
    const all = whole ? tree.all() : [];
    const edited = store.edit("conversations", mine.id, (is, put) => {
      (is ? changed : all).forEach(put);
      return is ? { ...mine, title: is.title, named: is.named } : whole ? mine : undefined;
    });
    await edited.then(onchange, onfail);
  }

  /** @param {Turn} turn */
  function sizeOf(turn) {
    const { content, messages } = turn;
    const known = sizes.get(turn);
    if (known && known.content === content && known.messages === messages) return known.bytes;
    const bytes = bytesOf(messages ?? { role: turn.role, content });
    sizes.set(turn, { content, messages, bytes });
    return bytes;
  }

  return {
    get id() {
      return conversation?.id ?? null;
    },
    get conversation() {
      return conversation;
    },
    /** The shown turns, the first one first. */
    path: () => tree.path(conversation?.leaf ?? null),
    /** The messages of a prompt that ends with a turn. @param {string | null} leaf */
    messages: (leaf) => messagesOf(tree.path(leaf)).messages,
    /** How large the shown turns are in a request, in bytes; each is measured once. */
    bytes: () => tree.path(conversation?.leaf ?? null).reduce((sum, turn) => sum + sizeOf(turn), 0),
    /** @param {Turn} turn */
    siblings: (turn) => tree.siblings(turn),
    /** Begin a new conversation; it is kept from its first turn on. */
    begin() {
      conversation = null;
      tree = createTree();
    },
    /**
     * Load a conversation; false if there is none with this id, or the shown one went on meanwhile.
     * @param {string} id @param {Map<string, {turn: Turn}>} live turns that are being written, by id
     */
    async load(id, live) {
      const mine = conversation?.id === id ? conversation : null;
      const all = await store.conversations();
      const found = all.find((one) => one.id === id);
      const kept = await store.turns(id);
      if (!found || (mine && mine !== conversation)) return false;
      // What has not changed stays what it is, and so does what shows it.
      const same = new Map(tree.all().map((turn) => [turn.id, turn]));
      tree = createTree(kept.map((turn) => live.get(turn.id)?.turn ?? (turn.role === "user" || same.get(turn.id)?.ended ? same.get(turn.id) : null) ?? turn));
      conversation = found;
      return true;
    },
    /**
     * Add a turn and show it.
     * @param {Pick<Turn, "role" | "content" | "parent"> & Partial<Turn>} given @param {string} title of a new conversation
     * @returns {Turn}
     */
    add(given, title = "") {
      const made = now();
      conversation ??= { id: newId(), title: titleOf(title), named: false, made, changed: made, leaf: null };
      const turn = { ...given, id: newId(), conversation: conversation.id, made };
      tree.add(turn);
      conversation = { ...conversation, leaf: turn.id, changed: made };
      save([turn], true);
      return turn;
    },
    /** Return a turn as it is kept: another page may have changed it. @param {Turn} turn */
    kept: async ({ id, conversation: of }) => (await store.turns(of)).find((one) => one.id === id),
    /** Return the last turn that another page has said here, as it is kept; undefined if there is none. */
    async further() {
      if (!conversation) return undefined;
      const { id, changed } = conversation;
      const now = (await store.conversations()).find((one) => one.id === id);
      return now?.leaf && now.changed > changed ? this.kept(/** @type {Turn} */ ({ id: now.leaf, conversation: id })) : undefined;
    },
    /** Change a turn in place; its conversation may be another one by now. Resolves once it is kept. @param {Turn} turn @param {Partial<Turn>} changes */
    change(turn, changes) {
      Object.assign(turn, changes);
      return turn.conversation === conversation?.id ? save([turn]) : store.save([], [turn]).then(onchange, onfail);
    },
    /** Show a version of a turn, with what was said last below it. @param {Turn} turn */
    choose(turn) {
      if (!conversation) return;
      conversation = { ...conversation, leaf: tree.leafBelow(turn.id) };
      save([]);
    },
    /** Show everything up to a turn. @param {string | null} id */
    goBack(id) {
      if (conversation) conversation = { ...conversation, leaf: id };
    },
  };
}
