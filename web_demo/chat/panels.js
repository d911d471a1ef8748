// @ts-check
/** What opens below an answer: the answer as a tape, and programs that ask for it. */

import { copyText, make } from "../shell/dom.js";
import { say } from "../shell/speaker.js";
import { download, hand } from "../tapes/room.js";
import { toLink } from "../tapes/tape.js";
import { javascript, python, react } from "../wire/code.js";
import { tapeOf } from "./answer_tape.js";

const COPIED_MS = 1500;
const PROGRAMS = { JavaScript: javascript, React: react, Python: python };

/**
 * Return a panel that gives an answer away as a tape.
 * @param {import("../store/tree.js").Turn} turn @param {import("../store/tree.js").Turn | null} question @param {() => void} close
 */
export async function sharePanel(turn, question, close) {
  const tape = tapeOf(turn, question);
  const link = await toLink(tape);
  const address = link && `${location.origin}${location.pathname}#tape/${link}`;
  const copy = address
    ? copier("Copy link", () => address)
    : make("span", { class: "hint" }, "It is too long for a link.");
  return panel(
    "Share",
    close,
    [copy, plain("Save as a file", () => download(tape)), plain("Play", () => hand(tape))],
    make("p", { class: "hint" }, "A tape plays the answer as it came, without a model, on any copy of this page. It has what was asked last, and nothing that was said before."),
  );
}

/** Return a panel with programs that make a request. @param {object} request @param {() => void} close */
export function codePanel(request, close) {
  const pre = make("pre", { tabindex: "0", "aria-label": "The program" });
  const tabs = /** @type {(keyof typeof PROGRAMS)[]} */ (Object.keys(PROGRAMS)).map((name) => plain(name, () => show(name)));

  /** @param {keyof typeof PROGRAMS} name */
  function show(name) {
    for (const tab of tabs) tab.ariaPressed = String(tab.textContent === name);
    pre.textContent = PROGRAMS[name](request, location.origin);
  }

  show("JavaScript");
  return panel("Code", close, [...tabs, make("span", { class: "space" }), copier("Copy program", () => pre.textContent ?? "")], pre);
}

/** @param {string} label @param {() => void} close @param {HTMLElement[]} acts @param {HTMLElement} inside */
function panel(label, close, acts, inside) {
  const away = make("button", { type: "button", class: "quiet", "aria-label": `Close ${label}`, click: close }, "×");
  return make("div", { class: "panel", role: "group", "aria-label": label }, make("div", { class: "panel-acts" }, ...acts, away), inside);
}

/** @param {string} label @param {() => void} click */
const plain = (label, click) => make("button", { type: "button", class: "quiet", click }, label);

/** @param {string} label @param {() => string} text */
function copier(label, text) {
  const button = plain(label, async () => {
    const done = await copyText(text());
    button.textContent = done ? "Copied" : "Not allowed";
    if (done) say("Copied.");
    setTimeout(() => (button.textContent = label), COPIED_MS);
  });
  return button;
}
