// @ts-check
/** The list of keys, and what a person may want to change about them. */

import { make } from "./dom.js";
import { HEARD, prefer, preferred, SINGLE_KEYS } from "./preferences.js";

/** @param {HTMLDialogElement} dialog @param {import("./commands.js").Commands} commands */
export function createKeys(dialog, commands) {
  function show() {
    /** @type {Map<string, HTMLElement[]>} */
    const groups = new Map();
    for (const { group, label, keys = [], shown, hidden } of commands.all()) {
      if (hidden || !(keys.length || shown)) continue;
      const signs = shown ? [shown] : keys;
      const row = make("div", {}, make("dt", {}, ...signs.map((sign) => make("kbd", {}, sign))), make("dd", {}, label));
      groups.set(group, [...(groups.get(group) ?? []), row]);
    }
    dialog.replaceChildren(
      make(
        "header",
        {},
        make("h2", { id: "keys-title" }, "Keys"),
        make("button", { type: "button", class: "quiet icon", "aria-label": "Close the list of keys", click: () => dialog.close() }, "×"),
      ),
      make("div", { class: "key-groups" }, ...[...groups].map(([name, rows]) => make("section", {}, make("h3", {}, name), make("dl", {}, ...rows)))),
      choice(SINGLE_KEYS, true, "Single keys work while nothing is typed"),
      choice(HEARD, false, "Screen readers hear the whole answer when it ends"),
    );
  }

  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return {
    open() {
      if (dialog.open) return dialog.close();
      show();
      dialog.showModal();
    },
  };
}

/** @param {string} name @param {boolean} usual @param {string} label */
function choice(name, usual, label) {
  const box = make("input", { type: "checkbox", checked: preferred(name, usual), change: () => prefer(name, box.checked) });
  return make("label", { class: "choice" }, box, ` ${label}`);
}
