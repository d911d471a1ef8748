// @ts-check
/** The room with the conversations: their list, and one of them. */

import { addressed } from "../shell/rooms.js";
import { escapes, find, make } from "../shell/dom.js";
import { FRAME_MS, holdText } from "../shell/socket.js";
import { PAINT_MS } from "./answer.js";
import { CARDS } from "./cards.js";
import { createPane } from "./pane.js";
import { createSidebar } from "./sidebar.js";

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export async function open(root, app) {
  const store = await app.store;
  const row = make("div", { class: "panes" });
  const sidebar = createSidebar(store, {
    begin,
    current: () => pane.id(),
    runs: (id) => pane.runs(id),
    removed: (id) => pane.drop(id),
  });
  root.classList.add("chat");
  root.append(sidebar.root, row);
  const pane = createPane(app, row, store, { changed: sidebar.show, moved });
  let visited = false;
  let here = false;
  find("#talks-button").addEventListener("click", () => showTalks(!root.classList.contains("talks-open")));
  document.addEventListener("keydown", onKey);
  row.addEventListener("click", () => showTalks(false));
  app.commands.add(() => (here ? [...commands(), ...pane.commands()] : []));
  app.finds(async () => (await store.conversations()).map(({ id, title }) => ({
    id, label: title, group: "Conversation", run: () => (location.hash = `#chat/${id}`),
  })));

  /** @returns {import("../shell/commands.js").Command[]} */
  function commands() {
    return [
      { id: "new", label: "New chat", group: "Chat", keys: ["n"], run: begin },
      { id: "search", label: "Search conversations", group: "Chat", keys: ["f"], run: search },
      ...CARDS.map((card) => ({
        id: card.id, label: card.title, group: "Try", run: () => (card.href ? void (location.hash = card.href) : pane.play(card)),
      })),
    ];
  }

  function search() {
    showTalks(true);
    sidebar.focusSearch();
  }

  /** Leave the conversation for a new one. */
  async function begin() {
    history.pushState(null, "", "#chat");
    await pane.open(null);
    showTalks(false);
    sidebar.show();
    pane.focus();
  }

  /** Give the shown conversation its address, without another visit, unless the address leads to another room already. */
  function moved() {
    const [room] = addressed(location.hash);
    const id = pane.id();
    if (here && (room === "chat" || room === "")) history.replaceState(null, "", id === null ? "#chat" : `#chat/${id}`);
  }

  /** @param {boolean} shown on a small screen, where the list covers the conversation */
  function showTalks(shown) {
    root.classList.toggle("talks-open", shown);
    find("#talks-button").ariaExpanded = String(shown);
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (root.hidden || !escapes(event)) return;
    if (root.classList.contains("talks-open")) showTalks(false);
    else pane.stop();
  }

  /** @param {boolean} shown */
  function showButtons(shown) {
    for (const name of ["#talks-button", "#settings-button"]) find(name).hidden = !shown;
  }

  /** @param {string} id */
  async function show(id) {
    here = true;
    holdText(PAINT_MS);
    showButtons(true);
    showTalks(false);
    if (id && id !== pane.id()) await pane.open(id);
    else if (!visited) await pane.open(null);
    visited = true;
    moved();
    sidebar.show();
    pane.focus();
  }

  function hide() {
    here = false;
    holdText(FRAME_MS);
    showButtons(false);
    if (app.drawers.shown() === "settings") app.drawers.close();
  }

  return { show, hide };
}
