// @ts-check
/** What can be done on the page by a key or from the palette. */

import { composes } from "./dom.js";
import { preferred, SINGLE_KEYS } from "./preferences.js";

/**
 * `keys` are single keys, which work while nothing is typed; `shown` is how they are listed where that differs, or of
 * a key that something else listens to. A command without a label in the palette has no `run`.
 * @typedef {{
 *   id: string, label: string, group: string, keys?: string[], shown?: string, run?: () => void, hidden?: boolean,
 * }} Command `hidden` leaves it out of the list of keys
 */

/** Whether this is a computer by Apple. */
export const apple = () => /Mac|iPhone|iPad/.test(navigator.platform);

/** @typedef {ReturnType<typeof createCommands>} Commands */

export function createCommands() {
  /** @type {(() => Command[])[]} */
  const sources = [];
  const all = () => sources.flatMap((source) => source());

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || composes(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!preferred(SINGLE_KEYS, true) || isTyped(event.target) || document.querySelector("dialog[open]")) return;
    const command = all().find(({ keys, run }) => run && keys?.includes(event.key));
    if (!command) return;
    event.preventDefault();
    command.run?.();
  });

  return {
    /** Add commands, which are asked for whenever they are needed. @param {() => Command[]} source */
    add(source) {
      sources.push(source);
    },
    all,
  };
}

/** Whether keys go into an element. @param {EventTarget | null} target */
function isTyped(target) {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=button])");
}
