// @ts-check
/**
 * What the page keeps in the browser: conversations and their turns in IndexedDB, drafts and settings beside
 * them. Where a browser has no IndexedDB to give, everything is kept until the page is left.
 */

/** @typedef {import("./tree.js").Conversation} Conversation */
/** @typedef {import("./tree.js").Turn} Turn */

const NAME = "mlx-gateway";
const VERSION = 1;
const STORES = /** @type {const} */ (["conversations", "turns", "values"]);

/** @typedef {ReturnType<typeof kept>} Store */

/** @param {string} [name] */
export async function openStore(name = NAME) {
  const database = await opened(name).catch(() => null);
  return database ? kept(database) : (await import("./unkept.js")).unkept();
}

/** @param {string} name @returns {Promise<IDBDatabase>} */
function opened(name) {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open(name, VERSION);
    asked.onupgradeneeded = () => {
      const { result } = asked;
      result.createObjectStore("conversations", { keyPath: "id" });
      result.createObjectStore("turns", { keyPath: "id" }).createIndex("conversation", "conversation");
      result.createObjectStore("values");
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
    asked.onblocked = () => reject(new Error("another tab has an older version of this page"));
  });
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function answered(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBDatabase} database */
function kept(database) {
  const tabs = new BroadcastChannel(database.name);
  database.onversionchange = () => database.close();

  /** @param {"readonly" | "readwrite"} mode */
  const begin = (mode) => database.transaction(STORES, mode);

  /** Change several things, all or none. @param {(change: IDBTransaction) => void} make @returns {Promise<void>} */
  function change(make) {
    return new Promise((resolve, reject) => {
      const made = begin("readwrite");
      made.oncomplete = () => {
        tabs.postMessage(0);
        resolve();
      };
      made.onabort = () => reject(made.error);
      try {
        make(made);
      } catch (error) {
        reject(error);
        made.abort();
      }
    });
  }

  return {
    /** Whether what is kept survives a reload. */
    lasting: true,
    /** @returns {Promise<Conversation[]>} */
    conversations: () => answered(begin("readonly").objectStore("conversations").getAll()),
    /** The turns of a conversation, or of all. @param {string} [conversation] @returns {Promise<Turn[]>} */
    turns(conversation) {
      const turns = begin("readonly").objectStore("turns");
      return answered(conversation === undefined ? turns.getAll() : turns.index("conversation").getAll(conversation));
    },
    /**
     * Add conversations and turns, or replace those with the same ids. Turns of a conversation that is removed
     * are not kept. @param {Conversation[]} conversations @param {Turn[]} turns
     */
    save: (conversations, turns = []) =>
      change((made) => {
        const all = made.objectStore("conversations");
        for (const one of conversations) all.put(one);
        const known = new Set(conversations.map(({ id }) => id));
        for (const one of turns) {
          const put = () => made.objectStore("turns").put(one);
          if (known.has(one.conversation)) put();
          else all.getKey(one.conversation).onsuccess = ({ target }) => /** @type {any} */ (target).result !== undefined && put();
        }
        if (turns.every((one) => known.has(one.conversation))) made.commit(); // so that a page may be left now
      }),
    /**
     * Change a conversation or a value by what is kept of it at that time.
     * @param {"conversations" | "values"} name @param {string} key
     * @param {(is: any, put: (turn: Turn) => void) => any} make returns what is to be kept, undefined to leave it; `put` keeps a turn with it
     */
    edit: (name, key, make) =>
      change((made) => {
        const all = made.objectStore(name);
        const asked = all.get(key);
        asked.onsuccess = () => {
          const next = make(asked.result, (turn) => made.objectStore("turns").put(turn));
          if (next !== undefined) all.put(next, all.keyPath ? undefined : key);
        };
      }),
    /** Call a function whenever another tab has changed something. @param {() => void} listener */
    watch: (listener) => tabs.addEventListener("message", listener),
    /** Remove a conversation with its turns. @param {string} id */
    remove: (id) =>
      change((made) => {
        made.objectStore("conversations").delete(id);
        const turns = made.objectStore("turns").index("conversation").openCursor(id);
        turns.onsuccess = () => {
          turns.result?.delete();
          turns.result?.continue();
        };
      }),
    /** @param {string} key @returns {Promise<any>} */
    value: (key) => answered(begin("readonly").objectStore("values").get(key)),
    /** Keep a value; undefined removes it. @param {string} key @param {unknown} value */
    keep: (key, value) =>
      change((made) => {
        const values = made.objectStore("values");
        if (value === undefined) values.delete(key);
        else values.put(value, key);
        made.commit();
      }),
    close() {
      tabs.close();
      database.close();
    },
  };
}
