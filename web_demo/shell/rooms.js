// @ts-check
/**
 * The page's rooms. The part of the address behind its `#` is a room's id and, behind a slash, what the
 * room makes of it. A room's modules are loaded when it is first opened; then it stays, hidden while
 * another one is shown.
 */

import { find, icon, make, useStyle } from "./dom.js";

/**
 * @typedef {{show: (rest: string) => void | Promise<void>, hide: () => void}} Room `rest` is what follows the id
 * @typedef {{open: (root: HTMLElement, app: any) => Room | Promise<Room>, prepare?: () => Promise<unknown>}} Module `prepare`
 *   loads what else the room needs
 * @typedef {{id: string, label: string, icon?: string, style: string, load: () => Promise<Module>, offline?: boolean}} Entry
 *   `icon` is a path in a square of 24, for the bar of a phone; `offline` says that the room is of use without a gateway
 */

/** @type {Entry[]} */
export const ROOMS = [
  { id: "chat", label: "Chat", style: "/chat/chat.css", load: () => import("../chat/room.js"), icon: "M4 5h16v11H10l-5 4v-4H4z" },
  { id: "race", label: "Race", style: "/race/race.css", load: () => import("../race/room.js"), icon: "M5 21V4h13l-3 4.5 3 4.5H5" },
  {
    id: "wall", label: "Wall", style: "/wall/wall.css", load: () => import("../wall/room.js"),
    icon: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  },
  {
    id: "tape", label: "Tape", style: "/tapes/tapes.css", load: () => import("../tapes/room.js"), offline: true,
    icon: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M10 8.5v7l6-3.5z",
  },
];

/**
 * Show the room of the address, now and whenever the address changes. Returns a promise of the first one
 * being open.
 * @param {Entry[]} rooms the first one is shown where the address has none
 * @param {HTMLElement} nav where their links go
 * @param {HTMLElement} main where they go themselves
 * @param {any} app what they are opened with
 */
export function startRooms(rooms, nav, main, app) {
  /** @type {Map<string, Promise<Room>>} */
  const opened = new Map();
  /** @type {Room | null} */
  let shown = null;
  let newest = 0;

  nav.hidden = rooms.length < 2;
  nav.replaceChildren(...rooms.map(linkTo));
  addEventListener("hashchange", follow);
  return follow();

  async function follow() {
    const [id, rest] = addressed(location.hash);
    const entry = rooms.find((one) => one.id === id) ?? rooms[0];
    newest += 1;
    const turn = newest;
    for (const [index, link] of [...nav.children].entries()) {
      if (rooms[index] === entry) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const room = await opening(entry).catch(() => null);
    if (turn !== newest) return; // the address has changed meanwhile
    if (shown !== room) shown?.hide();
    shown = room;
    for (const section of main.children) {
      /** @type {HTMLElement} */ (section).hidden = section.id !== `room-${entry.id}`;
    }
    await room?.show(entry.id === id ? rest : "");
  }

  /** @param {Entry} entry */
  function opening(entry) {
    const before = opened.get(entry.id);
    if (before) return before;
    const room = open(entry);
    opened.set(entry.id, room);
    room.catch(() => {
      opened.delete(entry.id); // so that the next visit tries again
      find(`#room-${entry.id}`, main)?.replaceChildren(make("p", { role: "alert" }, "This room could not be loaded."));
    });
    return room;
  }

  /** @param {Entry} entry */
  async function open(entry) {
    const name = `room-${entry.id}`;
    find(`#${name}`, main)?.remove();
    const root = make("section", { id: name, class: "room", "aria-label": entry.label, hidden: true });
    main.append(root);
    return (await loaded(entry)).open(root, app);
  }
}

/** Load what a room needs, so that it opens without a gateway. @param {Entry} room */
export async function loaded({ load, style }) {
  const [module] = await Promise.all([load(), useStyle(style)]);
  await module.prepare?.();
  return module;
}

/** @param {Entry} room */
const linkTo = ({ id, label, icon: path }) => make("a", { href: `#${id}` }, ...(path ? [icon(path)] : []), make("span", {}, label));

/** Return the id and the rest of an address. @param {string} hash @returns {[string, string]} */
export function addressed(hash) {
  const text = hash.replace(/^#/, "");
  const slash = text.indexOf("/");
  return slash < 0 ? [text, ""] : [text.slice(0, slash), text.slice(slash + 1)];
}
