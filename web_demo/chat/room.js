// @ts-check
/** The room with the conversations: their list, and one or two of them. */

import { watchSettings } from "../settings/settings.js";
import { find, make } from "../shell/dom.js";
import { openStore } from "../store/database.js";
import { createPane } from "./pane.js";
import { createSidebar } from "./sidebar.js";

/** @typedef {ReturnType<typeof createPane>} Pane */

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export async function open(root, app) {
  const store = await openStore();
  const row = make("div", { class: "panes" });
  const sidebar = createSidebar(store, {
    begin,
    current: () => panes[0].id(),
    renamed: (id, title) => panes.filter((pane) => pane.id() === id).forEach((pane) => pane.rename(title)),
  });
  root.classList.add("chat");
  root.append(sidebar.root, row);
  const panes = [addPane()];
  let visited = false;
  watchSettings();
  find("#split").addEventListener("click", toggleSplit);
  find("#talks-button").addEventListener("click", () => showTalks(!root.classList.contains("talks-open")));
  document.addEventListener("keydown", onKey);
  row.addEventListener("click", () => showTalks(false));

  function addPane() {
    return createPane(app, row, store, { changed: sidebar.show, moved });
  }

  /** Leave the conversation for a new one. */
  async function begin() {
    history.pushState(null, "", "#chat");
    await panes[0].open(null);
    showTalks(false);
    sidebar.show();
    panes[0].focus();
  }

  /** Give the shown conversation its address, without another visit. */
  function moved() {
    const id = panes[0].id();
    if (!root.hidden) history.replaceState(null, "", id === null ? "#chat" : `#chat/${id}`);
  }

  /** @param {boolean} shown on a small screen, where the list covers the conversation */
  function showTalks(shown) {
    root.classList.toggle("talks-open", shown);
    find("#talks-button").ariaExpanded = String(shown);
  }

  function toggleSplit() {
    if (panes.length === 1) panes.push(addPane());
    else panes.pop()?.remove();
    find("#split").setAttribute("aria-pressed", String(panes.length === 2));
    row.classList.toggle("two", panes.length === 2);
    panes[panes.length - 1].focus();
  }

  /** On Esc, stop the answer in the focused conversation, or else every answer. @param {KeyboardEvent} event */
  function onKey(event) {
    if (event.key !== "Escape" || root.hidden || find("#settings").matches(":popover-open")) return;
    const focused = panes.filter((pane) => pane.hasFocus() && pane.running());
    for (const pane of focused.length ? focused : panes) pane.stop();
  }

  /** @param {boolean} shown */
  function showButtons(shown) {
    for (const name of ["#talks-button", "#split", "#settings-button"]) find(name).hidden = !shown;
  }

  /** @param {string} id */
  async function show(id) {
    showButtons(true);
    showTalks(false);
    if (id && id !== panes[0].id()) await panes[0].open(id);
    else if (!visited) await panes[0].open(null);
    visited = true;
    moved();
    sidebar.show();
    panes[0].focus();
  }

  return { show, hide: () => showButtons(false) };
}
