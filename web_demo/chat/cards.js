// @ts-check
/** What a first visit shows: which model runs, and cards that each set a feature up and try it. */

import { copyText, find, icon, make } from "../shell/dom.js";
import { factsOf } from "../settings/models.js";

/**
 * `set` are settings that the card changes; `cut` ends the connection once so much of the answer is there, in pieces.
 * @typedef {{
 *   id: string, title: string, says: string, icon: string, ask?: string, set?: Record<string, any>, tip?: string,
 *   cut?: number, href?: string, needs?: "tools" | "thinking",
 * }} Card
 */

const EMBEDDED = "embedded";
const LARGER = "mlx-gateway serve mlx-community/Qwen3-0.6B-4bit";
const COPIED_MS = 1500;

/** @type {Card[]} */
export const CARDS = [
  {
    id: "stop", title: "Stop me", says: "A long story begins. Press Stop, and the model stops before its next word.",
    icon: "M7 7h10v10H7z", ask: "Tell me a story about a lighthouse keeper", tip: "Press Stop, or Esc: the model stops before its next word.",
  },
  {
    id: "tool", title: "Call a tool", says: "734 plus 58, by a function of this page that the model calls.",
    icon: "M14.5 6.5a4 4 0 0 0-5 5L4 17v3h3l5.5-5.5a4 4 0 0 0 5-5L15 12l-3-3z", ask: "What is 734 plus 58?",
    set: { calculator: true }, needs: "tools",
  },
  {
    id: "sure", title: "How sure?", says: "Each word shows how likely it was. Point at one to see the others.",
    icon: "M4 19V9m5.3 10V5m5.4 14v-7M20 19v-4", ask: "Tell me a story about a fox named Zorvan", set: { sureness: true, temperature: 1.1 },
    tip: "Point at a marked word, or go there by Tab and the arrow keys.",
  },
  {
    id: "think", title: "Think aloud", says: "What the model thinks comes first, and folds away when it answers.",
    icon: "M9 18h6m-5 3h4M12 3a6 6 0 0 0-3.5 10.9c.5.4.8 1 .8 1.6h5.4c0-.6.3-1.2.8-1.6A6 6 0 0 0 12 3", ask: "Tell me a story about a lost umbrella",
    set: { thinking: "yes" }, needs: "thinking",
  },
  {
    id: "many", title: "32 at once", says: "A wall of stories on one socket. Click one, and it stops; the others speed up.",
    icon: "M4 4h4v4H4zm6 0h4v4h-4zm6 0h4v4h-4zM4 10h4v4H4zm6 0h4v4h-4zm6 0h4v4h-4zM4 16h4v4H4zm6 0h4v4h-4zm6 0h4v4h-4z", href: "#wall/32/start",
  },
  {
    id: "plug", title: "Pull the plug", says: "The connection is cut in the middle of a word. Nothing is lost.",
    icon: "M9 3v5m6-5v5M6 8h12v3a6 6 0 0 1-12 0zm6 9v4", ask: "Tell me a story about a clockmaker", cut: 20,
    tip: "The connection is cut while it writes; the life line below the answer shows the gap.",
  },
];

/** What cards set, as it is by itself, so that no card works upon what another one has set. */
const PLAIN = { calculator: false, sureness: false, thinking: "", temperature: 0.7, form: "text", answers: "1", tool_choice: "auto" };

/** Return what a card changes in the settings. @param {Card} card */
export const setBy = ({ set }) => ({ ...PLAIN, ...set });

/** Why a card does nothing with a model, or "". @param {Card} card @param {import("../settings/values.js").Model | null} model */
const whyNot = ({ needs }, model) =>
  needs && model?.[needs] === false ? `This model can't ${needs === "tools" ? "call tools" : "think aloud"}.` : "";

/**
 * Fill the place where no turns are yet.
 * @param {HTMLElement} root @param {import("../shell/app.js").App} app @param {(card: Card) => void} play
 */
export function createWelcome(root, { models }, play) {
  const runs = find(".runs", root);
  const list = find(".cards", root);

  function show() {
    const model = models.chosen();
    runs.replaceChildren(...saidOf(model));
    list.replaceChildren(...CARDS.map((card) => make("li", {}, element(card, whyNot(card, model)))));
  }

  /** @param {Card} card @param {string} why */
  function element(card, why) {
    const inside = [icon(card.icon), make("strong", {}, card.title), make("span", {}, why || card.says)];
    if (card.href) return make("a", { class: "card", href: card.href }, ...inside);
    return make("button", { type: "button", class: "card", disabled: Boolean(why), click: () => play(card) }, ...inside);
  }

  models.events.addEventListener("change", show);
  show();
}

/** Return what runs, in words. @param {import("../settings/values.js").Model | null} model */
function saidOf(model) {
  if (!model) return ["What runs here is known once there is a connection."];
  const facts = factsOf(model).map(({ text }) => text).join(", ");
  if (model.id !== EMBEDDED) return ["Running here: ", make("strong", {}, model.id), facts && ` (${facts})`, "."];
  const copy = make("button", { type: "button", class: "quiet", click: copyCommand }, "Copy");
  return [
    "Running here: ",
    make("strong", {}, "the built-in demo model"),
    ", 2.3 million parameters. It tells stories, counts, rhymes and calls tools, and knows nothing of the world. For a real one: ",
    make("span", { class: "command" }, make("code", {}, LARGER), copy),
  ];

  async function copyCommand() {
    if (!(await copyText(LARGER))) return;
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
  }
}
