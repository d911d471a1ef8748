// @ts-check
/** The page's drawers: what stands beside a room, one at a time. A drawer is loaded when it is first opened. */

import { escapes, icon, make, useStyle } from "./dom.js";

/**
 * @typedef {{show: () => void, hide: () => void, [more: string]: any}} Drawer
 * @typedef {{open: (root: HTMLElement, app: any) => Drawer | Promise<Drawer>}} Module
 * @typedef {{id: string, label: string, icon?: string, style: string, load: () => Promise<Module>, hidden?: boolean}} Entry
 *   `icon` is a path in a square of 24, for the bar of a phone; `hidden` is one whose button a room shows that it is for
 */

/** @type {Entry[]} */
export const DRAWERS = [
  {
    id: "settings", label: "Settings", style: "/settings/settings.css", load: () => import("../settings/drawer.js"), hidden: true,
    icon: "M4 7h9m5 0h2M4 17h2m5 0h9M15.5 7a2.2 2.2 0 1 0 0-.01M8.5 17a2.2 2.2 0 1 0 0-.01",
  },
  {
    id: "wire", label: "Wire", style: "/wire/wire.css", load: () => import("../wire/drawer.js"),
    icon: "M8 20V5m0 0L4.5 8.5M8 5l3.5 3.5M16 4v15m0 0-3.5-3.5M16 19l3.5-3.5",
  },
  {
    id: "engine", label: "Engine", style: "/engine/engine.css", load: () => import("../engine/drawer.js"),
    icon: "M3 12h4l2.5-6 5 12 2.5-6H21",
  },
];

/**
 * Make the buttons that open and close the drawers.
 * @param {Entry[]} drawers
 * @param {HTMLElement} bar where their buttons go
 * @param {HTMLElement} aside where they go themselves
 * @param {any} app what they are opened with
 */
export function startDrawers(drawers, bar, aside, app) {
  /** @type {Map<Entry, {root: HTMLElement, drawer: Promise<Drawer>}>} */
  const opened = new Map();
  /** @type {Entry | null} */
  let shown = null;
  const buttons = drawers.map((entry) =>
    make(
      "button",
      {
        type: "button", class: "quiet", id: `${entry.id}-button`, "aria-expanded": "false", "aria-controls": aside.id, hidden: entry.hidden,
        click: () => (shown === entry ? close() : open(entry)),
      },
      ...(entry.icon ? [icon(entry.icon)] : []),
      make("span", {}, entry.label),
    ),
  );
  bar.replaceChildren(...buttons);
  aside.addEventListener("keydown", (event) => {
    if (!escapes(event)) return;
    event.preventDefault();
    event.stopPropagation();
    close();
  });

  /** @param {Entry} entry */
  async function open(entry) {
    if (shown !== entry) leave();
    shown = entry;
    mark();
    const { root, drawer } = opening(entry);
    root.hidden = aside.hidden = false;
    root.focus();
    const made = await drawer.catch(() => null);
    if (shown === entry) made?.show();
    return made;
  }

  /** Hide the shown drawer. */
  function leave() {
    const one = shown && opened.get(shown);
    if (one) one.root.hidden = true;
    one?.drawer.then((drawer) => drawer.hide(), () => {});
  }

  /** Hide the shown drawer; the focus goes back to its button. */
  function close() {
    if (!shown) return;
    const inside = aside.contains(document.activeElement);
    const button = buttons[drawers.indexOf(shown)];
    leave();
    shown = null;
    aside.hidden = true;
    mark();
    if (inside) button.focus();
  }

  function mark() {
    for (const [index, button] of buttons.entries()) button.ariaExpanded = String(drawers[index] === shown);
  }

  /** @param {Entry} entry */
  function opening(entry) {
    const before = opened.get(entry);
    if (before) return before;
    const inside = make("div", { class: "drawer-inside" });
    const head = make(
      "header",
      { class: "drawer-head" },
      make("h2", {}, entry.label),
      make("button", { type: "button", class: "quiet", "aria-label": `Close ${entry.label}`, click: close }, "×"),
    );
    const root = make("section", { class: "drawer-one", id: entry.id, "aria-label": entry.label, tabindex: -1 }, head, inside);
    aside.append(root);
    const one = { root, drawer: load(entry, inside) };
    opened.set(entry, one);
    one.drawer.catch(() => {
      opened.delete(entry); // so that the next opening tries again
      inside.replaceChildren(make("p", { role: "alert" }, "This drawer could not be loaded."));
    });
    return one;
  }

  /** @param {Entry} entry @param {HTMLElement} inside */
  async function load(entry, inside) {
    const [module] = await Promise.all([entry.load(), useStyle(entry.style)]);
    return module.open(inside, app);
  }

  const entryOf = (/** @type {string} */ id) => /** @type {Entry} */ (drawers.find((one) => one.id === id));

  return {
    close,
    /** Open a drawer; resolves to what its module made, null if it can't be loaded. @param {string} id */
    open: (id) => open(entryOf(id)),
    /** The id of the drawer that is shown, null if none is. */
    shown: () => shown?.id ?? null,
  };
}
