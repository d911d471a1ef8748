// @ts-check
/** The form in which a person changes a question. */

import { composes, make } from "../shell/dom.js";
import { textOf } from "../store/tree.js";
import { attachedTo } from "./attachments.js";

/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("../client.js").Part} Part */

/**
 * Show the form at a question, unless it is there.
 * @param {Turn} turn @param {HTMLElement} root its element
 * @param {(turn: Turn, text: string, without: Set<Part>) => void} changed called with the new text, and the attachments that don't go with it
 */
export function openEdit(turn, root, changed) {
  if (root.classList.contains("editing")) return;
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const field = make("textarea", { "aria-label": "Edit message", rows: 1, input: fit, keydown: onKey });
  field.value = textOf(turn);
  /** Attachments that are taken away. @type {Set<Part>} */
  const without = new Set();
  const files = attachedTo(turn.content).map(({ part, name, view }) => {
    const away = () => {
      without.add(part);
      chip.remove();
      field.focus();
    };
    const chip = make("li", {}, view, make("button", { type: "button", "aria-label": `Remove ${name}`, click: away }, "×"));
    return chip;
  });
  const form = make(
    "form",
    { class: "edit", submit: send },
    ...(files.length ? [make("ul", { class: "attached", "aria-label": "Files of this message" }, ...files)] : []),
    field,
    make("button", { type: "button", class: "quiet", click: close }, "Cancel"),
    make("button", { type: "submit", class: "send" }, "Send"),
  );

  function close() {
    form.remove();
    root.classList.remove("editing");
    before?.focus();
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (composes(event)) return;
    if (event.key === "Enter" && !event.shiftKey) send(event);
    else if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
  }

  /** @param {Event} event */
  function send(event) {
    event.preventDefault();
    const text = field.value;
    close();
    if (text.trim() || typeof turn.content !== "string") changed(turn, text, without);
  }

  root.classList.add("editing");
  root.append(form);
  fit();
  field.focus();
  form.scrollIntoView({ block: "nearest" });
}
