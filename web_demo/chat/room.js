// @ts-check
/** The room with one or two conversations. */

import { watchSettings } from "../settings/settings.js";
import { find, make } from "../shell/dom.js";
import { createPane } from "./pane.js";

/** @typedef {ReturnType<typeof createPane>} Pane */

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export function open(root, app) {
  const row = make("div", { class: "panes" });
  root.append(row);
  const panes = [addPane()];
  watchSettings();
  find("#split").addEventListener("click", toggleSplit);
  document.addEventListener("keydown", onKey);

  function addPane() {
    const maxFrameBytes = () => app.ready?.limits.max_frame_bytes ?? Infinity;
    return createPane(app.client, row, maxFrameBytes);
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
    for (const name of ["#split", "#settings-button"]) find(name).hidden = !shown;
  }

  return {
    show() {
      showButtons(true);
      panes[0].focus();
    },
    hide: () => showButtons(false),
  };
}
