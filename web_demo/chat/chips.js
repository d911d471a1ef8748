// @ts-check
/** Shows the settings that are changed beside the input, each of which can be taken back there. */

import { make } from "../shell/dom.js";

/** @param {HTMLElement} list @param {import("../shell/app.js").App} app */
export function showChanged(list, { settings, drawers }) {
  const focused = list.contains(document.activeElement) ? [...list.querySelectorAll("button")].indexOf(/** @type {any} */ (document.activeElement)) : -1;
  const changed = settings.changed();
  list.replaceChildren(
    ...changed.map(({ id, text, idle }) =>
      make(
        "li",
        { class: idle ? "idle" : undefined, title: idle || undefined },
        make("button", { type: "button", class: "chip", title: idle ? undefined : "Change this setting", click: () => show(id) }, text),
        make("button", { type: "button", class: "away", "aria-label": `Take back: ${text}`, click: () => settings.reset(id) }, "×"),
      ),
    ),
  );
  list.hidden = !changed.length;
  const buttons = list.querySelectorAll("button");
  if (focused >= 0) buttons[Math.min(focused, buttons.length - 1)]?.focus();

  /** @param {string} id */
  async function show(id) {
    (await drawers.open("settings"))?.focus(id);
  }
}
