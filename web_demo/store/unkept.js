// @ts-check
/** What the page keeps where a browser gives it no IndexedDB: all of it, until the page is left. */

/** @typedef {import("./tree.js").Conversation} Conversation */
/** @typedef {import("./tree.js").Turn} Turn */

/** @returns {import("./database.js").Store} */
export function unkept() {
  /** @type {Map<string, Conversation>} */
  const conversations = new Map();
  /** @type {Map<string, Turn>} */
  const turns = new Map();
  /** @type {Map<string, unknown>} */
  const values = new Map();
  return {
    lasting: false,
    conversations: async () => structuredClone([...conversations.values()]),
    turns: async (conversation) => {
      const all = structuredClone([...turns.values()]);
      return conversation === undefined ? all : all.filter((turn) => turn.conversation === conversation);
    },
    save: async (some, more = []) => {
      for (const one of some) conversations.set(one.id, structuredClone(one));
      for (const one of more) if (conversations.has(one.conversation)) turns.set(one.id, structuredClone(one));
    },
    edit: async (name, key, make) => {
      /** @type {Map<string, any>} */
      const all = name === "values" ? values : conversations;
      const next = make(structuredClone(all.get(key)), (turn) => turns.set(turn.id, structuredClone(turn)));
      if (next !== undefined) all.set(key, structuredClone(next));
    },
    watch: () => {},
    remove: async (id) => {
      conversations.delete(id);
      for (const turn of turns.values()) if (turn.conversation === id) turns.delete(turn.id);
    },
    value: async (key) => values.get(key),
    keep: async (key, value) => {
      if (value === undefined) values.delete(key);
      else values.set(key, structuredClone(value));
    },
    close: () => {},
  };
}
