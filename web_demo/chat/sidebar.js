// @ts-check
/** The list of conversations: search, rename, delete with undo, export and import. */

import { searched } from "../store/tree.js";
import { find, make } from "../shell/dom.js";

/** @typedef {import("../store/tree.js").Conversation} Conversation */

const files = () => import("./files.js"); // few people need it
const titles = () => import("./rename.js");

const UNDO_MS = 8000;
const SEARCH_MS = 120; // after the last key

/**
 * @param {import("../store/database.js").Store} store
 * @param {{begin: () => void, current: () => string | null, runs: (id: string) => boolean,
 *   removed: (id: string) => void}} does `begin` leaves the conversation for a new one, `runs` tells whether one is being answered
 */
export function createSidebar(store, does) {
  const list = make("ul", { class: "talks", "aria-label": "Conversations" });
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search conversations", input: later });
  const file = make("input", { type: "file", accept: ".json,.md", hidden: true, change: read });
  const undo = make("p", { class: "undo", role: "status" });
  const root = make(
    "aside",
    { class: "sidebar", "aria-label": "Conversations" },
    make("div", { class: "sidebar-top" }, make("button", { type: "button", class: "new", click: () => does.begin() }, "New chat"), search),
    list,
    undo,
    make(
      "div",
      { class: "sidebar-end" },
      make("button", { type: "button", class: "quiet", title: "A new chat, with cards that each show a feature", click: () => does.begin() }, "Try things"),
      make("button", { type: "button", class: "quiet", click: async () => (await files()).exportAll(store) }, "Export all"),
      make("button", { type: "button", class: "quiet", click: () => file.click() }, "Import"),
      file,
    ),
  );
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let newest = 0;
  let renaming = false; // then the list stays as it is
  let shown = ""; // what the list shows, as JSON

  /** Return a conversation as it is now: its place may have changed since the list was made. @param {Conversation} talk */
  const fresh = async (talk) => (await store.conversations()).find(({ id }) => id === talk.id) ?? talk;

  function later() {
    clearTimeout(timer);
    timer = setTimeout(show, SEARCH_MS);
  }

  async function show() {
    newest += 1;
    const turn = newest;
    const query = search.value.trim();
    const [all, turns] = await Promise.all([store.conversations(), query ? store.turns() : []]);
    if (turn !== newest || renaming) return;
    const found = searched(all, turns, query);
    // A list that is replaced while somebody points at it loses the click; it is saved often while an answer is written.
    const now = JSON.stringify([query, does.current(), found.map(({ id, title }) => [id, title])]);
    if (now !== shown) put(found.length ? found.map(item) : [nothing(query)]);
    shown = now;
    for (const link of list.querySelectorAll("a")) link.classList.toggle("live", does.runs(link.hash.slice("#chat/".length)));
  }

  /** Show items; the focus stays at its own, or where that was. @param {HTMLElement[]} items */
  function put(items) {
    const held = document.activeElement?.closest(".talks li");
    const at = [...list.children].findIndex((one) => one === held);
    list.replaceChildren(...items);
    if (held) (find(`[href="${find("a", held)?.hash}"]`, list) ?? find("a", items[at] ?? items.at(-1)) ?? search).focus();
  }

  /** @param {string} query */
  const nothing = (query) => make("li", { class: "none" }, query ? "Nothing found." : "What you ask is kept here, in this browser.");

  /** @param {Conversation} talk */
  function item(talk) {
    titles().catch(() => {});
    const here = talk.id === does.current();
    const name = make("a", { href: `#chat/${talk.id}`, "aria-current": here ? "page" : undefined, title: talk.title }, talk.title);
    const act = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {() => void} */ click) =>
      make("button", { type: "button", class: "quiet", title: label, "aria-label": `${label} “${talk.title}”`, click }, sign);
    return make(
      "li",
      {},
      name,
      make(
        "span",
        { class: "talk-acts" },
        act("Rename", "✎", () => rename(talk, name)),
        act("Export", "↓", async () => (await files()).exportOne(store, await fresh(talk))),
        act("Delete", "×", () => remove(talk)),
      ),
    );
  }

  /** @param {Conversation} talk @param {HTMLElement} name */
  async function rename(talk, name) {
    const { titleOf } = await titles();
    if (!name.isConnected) return;
    renaming = true;
    const title = await titleOf(name, talk.title);
    renaming = false;
    if (title !== talk.title) await store.edit("conversations", talk.id, (is) => is && { ...is, title, named: true });
    shown = "";
    show();
  }

  /** @param {Conversation} listed */
  async function remove(listed) {
    const talk = await fresh(listed);
    const turns = await store.turns(talk.id);
    await store.remove(talk.id);
    does.removed(talk.id);
    if (does.current() === talk.id) does.begin();
    show();
    const back = async () => {
      undo.replaceChildren();
      await store.save([talk], turns);
      await show();
      find(`[href="#chat/${talk.id}"]`, list)?.focus();
    };
    undo.replaceChildren(`Deleted “${talk.title}”. `, make("button", { type: "button", click: back }, "Undo"));
    const said = undo.firstChild;
    setTimeout(() => undo.firstChild === said && undo.replaceChildren(), UNDO_MS);
  }

  async function read() {
    const [given] = file.files ?? [];
    file.value = "";
    if (!given) return;
    undo.replaceChildren(await (await files()).imported(store, given));
    show();
  }

  store.watch(later);
  return { root, show, focusSearch: () => find("input", root).focus() };
}
