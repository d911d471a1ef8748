// @ts-check
/** The palette: everything that can be done, found by a few letters. */

import { composes, make } from "./dom.js";

/** @typedef {import("./commands.js").Command} Command */

const MOST = 12; // shown at once

/** @param {HTMLDialogElement} dialog @param {import("./commands.js").Commands} commands @param {() => Promise<Command[]>} more what takes time to find */
export function createPalette(dialog, commands, more) {
  const list = make("ul", { id: "palette-list", role: "listbox", "aria-label": "What can be done" });
  const input = make("input", {
    type: "text", role: "combobox", placeholder: "What would you like to do?", "aria-label": "What would you like to do?",
    "aria-expanded": "true", "aria-controls": "palette-list", autocomplete: "off", spellcheck: "false", input: show, keydown: onKey,
  });
  /** @type {Command[]} */
  let all = [];
  /** @type {Command[]} */
  let found = [];
  let at = 0;
  dialog.replaceChildren(input, list);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  function show() {
    at = 0;
    found = matching(all, input.value).slice(0, MOST);
    const items = found.map((command, index) =>
      make(
        "li",
        { role: "option", id: `palette-${index}`, click: () => run(command), pointermove: () => go(index) },
        make("span", { class: "group" }, command.group),
        make("span", { class: "label" }, command.label),
        ...(command.shown ?? command.keys?.[0] ? [make("kbd", {}, command.shown ?? command.keys?.[0] ?? "")] : []),
      ),
    );
    list.replaceChildren(...(items.length ? items : [make("li", { class: "none", role: "option", "aria-disabled": "true" }, "Nothing like that.")]));
    go(0);
  }

  /** @param {number} index */
  function go(index) {
    if (!found.length) return input.removeAttribute("aria-activedescendant");
    at = (index + found.length) % found.length;
    for (const [place, item] of [...list.children].entries()) item.ariaSelected = String(place === at);
    input.setAttribute("aria-activedescendant", `palette-${at}`);
    list.children[at].scrollIntoView({ block: "nearest" });
  }

  /** @param {Command | undefined} command */
  function run(command) {
    dialog.close();
    command?.run?.();
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (composes(event)) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === "Enter") run(found[at]);
    else return;
    event.preventDefault();
  }

  return {
    async open() {
      if (dialog.open) return dialog.close();
      const known = () => commands.all().filter(({ run: does }) => does);
      all = known();
      input.value = "";
      show();
      dialog.showModal();
      const found_ = await more();
      all = [...known(), ...found_];
      if (dialog.open && input.value) show();
    },
  };
}

/**
 * Return the commands that have the letters of a query in their order, those that have its words first.
 * @param {Command[]} commands @param {string} query
 */
export function matching(commands, query) {
  const wanted = query.toLocaleLowerCase().trim();
  if (!wanted) return commands;
  const words = wanted.split(/\s+/);
  const ranked = commands.map((command) => {
    const text = `${command.group} ${command.label}`.toLocaleLowerCase();
    if (words.every((word) => text.includes(word))) return { command, rank: text.includes(wanted) ? 0 : 1 };
    let place = 0;
    for (const sign of wanted.replaceAll(" ", "")) place = place < 0 ? place : text.indexOf(sign, place) + 1 || -1;
    return { command, rank: place < 0 ? -1 : 2 };
  });
  return ranked.filter(({ rank }) => rank >= 0).sort((one, other) => one.rank - other.rank).map(({ command }) => command);
}
