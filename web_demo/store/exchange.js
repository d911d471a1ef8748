// @ts-check
/** Conversations as files, which can be read again: JSON has all of them, Markdown what a person reads. No I/O. */

import { pathTo, textOf } from "./tree.js";

/** @typedef {import("./tree.js").Conversation} Conversation */
/** @typedef {import("./tree.js").Turn} Turn */

const FORMAT = "mlx-gateway.conversations";
const VERSION = 1;
const MOST_TURNS = 20_000;
const USER = "You"; // in Markdown
const MOST_BUCKETS = 60; // of the pace that is drawn
const COUNTS = ["answers", "waited", "queued", "prompt", "cached", "tokens", "rate", "bucket"]; // of a life
const CUT = ["at", "for", "replayed"];
const ENDS = ["stop", "length", "tool_calls", "cancelled", "error"];

/** @param {Conversation[]} conversations @param {Turn[]} turns */
export function toJson(conversations, turns) {
  const kept = turns.map(({ ticket, odds, ...turn }) => turn); // a ticket is a secret, and soon of no use; odds are larger than all else
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations, turns: kept }, null, 1);
}

/** Return the shown turns of a conversation as Markdown. @param {Conversation} conversation @param {Turn[]} turns */
export function toMarkdown({ title, leaf }, turns) {
  const shown = pathTo(turns, leaf).map((turn) => {
    const name = turn.role === "user" ? USER : (turn.model ?? "Model");
    const files = typeof turn.content === "string" ? 0 : turn.content.length - (textOf(turn) ? 1 : 0);
    const attached = files ? `*${files} ${files === 1 ? "attachment" : "attachments"}*\n\n` : "";
    return `**${name}**\n\n${attached}${textOf(turn)}\n`;
  });
  return `# ${title}\n\n${shown.join("\n")}`;
}

/**
 * Return the conversations and turns of a file of either kind, with new ids, so that nothing that is there is replaced.
 * Throws an Error that says what is wrong.
 * @param {string} text @param {() => string} newId @param {number} now
 */
export const fromFile = (text, newId, now) => (text.startsWith("# ") ? fromMarkdown(text, newId, now) : fromJson(text, newId));

/**
 * Return the conversation that toMarkdown wrote. A question and an answer follow each other, and an answer may have
 * lines in bold that look like the name of one: only the user's name ends it.
 * @param {string} text @param {() => string} newId @param {number} now
 * @returns {{conversations: Conversation[], turns: Turn[]}}
 */
function fromMarkdown(text, newId, now) {
  const [first = "", ...lines] = text.replaceAll("\r\n", "\n").split("\n");
  const conversation = newId();
  /** @type {(Turn & {content: string})[]} */
  const turns = [];
  for (const line of lines) {
    const name = /^\*\*(.+)\*\*$/.exec(line)?.[1];
    const last = turns.at(-1);
    if (name && (last?.role === "user" ? name !== USER : name === USER)) {
      /** @type {Pick<Turn, "role" | "model" | "ended">} */
      const said = name === USER ? { role: "user" } : { role: "assistant", model: name, ended: "stop" };
      turns.push({ id: newId(), conversation, parent: last?.id ?? null, made: now + turns.length, content: "", ...said });
    } else if (last) last.content += `${line}\n`;
    else if (line.trim()) return notOurs();
  }
  if (!turns.length) return notOurs();
  for (const turn of turns) turn.content = turn.content.trim();
  const title = first.slice(2).trim().slice(0, 200);
  const made = { made: now, changed: now, leaf: turns.at(-1)?.id ?? null };
  return { conversations: [{ id: conversation, title, named: true, ...made }], turns };
}

/**
 * Return the conversations and turns of a JSON file as fromFile does.
 * @param {string} text @param {() => string} newId
 */
export function fromJson(text, newId) {
  const file = parsed(text);
  if (file?.format !== FORMAT) return notOurs();
  if (file.version !== VERSION) throw new Error("this file was written by another version of this page");
  const given = [file.conversations, file.turns];
  if (!given.every(Array.isArray) || file.turns.length > MOST_TURNS) throw new Error("this file is damaged");
  /** @type {Map<string, string>} */
  const ids = new Map();
  for (const { id } of [...file.conversations, ...file.turns]) ids.set(checked(id, "string"), newId());
  const known = (/** @type {unknown} */ id) => ids.get(checked(id, "string")) ?? wrong();
  const orNull = (/** @type {unknown} */ id) => (id === null ? null : known(id));
  return {
    conversations: file.conversations.map((/** @type {any} */ one) => conversationOf(one, known, orNull)),
    turns: file.turns.map((/** @type {any} */ one) => turnOf(one, known, orNull)),
  };
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("this file is neither JSON nor Markdown of this page");
  }
}

/** @returns {never} */
function notOurs() {
  throw new Error("this file has no conversations of this page");
}

/** @returns {never} */
function wrong() {
  throw new Error("this file is damaged");
}

/** @param {any} value @param {string} type */
function checked(value, type) {
  return typeof value === type ? value : wrong();
}

/** @param {any} one @param {(id: unknown) => string} known @param {(id: unknown) => string | null} orNull @returns {Conversation} */
function conversationOf(one, known, orNull) {
  return {
    id: known(one.id),
    title: checked(one.title, "string").slice(0, 200),
    named: Boolean(one.named),
    made: checked(one.made, "number"),
    changed: checked(one.changed, "number"),
    leaf: orNull(one.leaf),
  };
}

/** @param {any} one @param {(id: unknown) => string} known @param {(id: unknown) => string | null} orNull @returns {Turn} */
function turnOf(one, known, orNull) {
  if (!["user", "assistant"].includes(one.role)) wrong();
  const texts = ["reasoning", "figures", "model"].filter((name) => typeof one[name] === "string");
  return {
    id: known(one.id),
    conversation: known(one.conversation),
    parent: orNull(one.parent),
    role: one.role,
    made: checked(one.made, "number"),
    content: typeof one.content === "string" ? one.content : partsOf(one.content),
    ...Object.fromEntries(texts.map((name) => [name, one[name]])),
    ...(ENDS.includes(one.ended) ? { ended: one.ended } : {}),
    ...(Array.isArray(one.messages) ? { messages: one.messages } : {}),
    ...writtenOf(one),
  };
}

/** @param {unknown} value @returns {value is number} */
const isCount = (value) => Number.isFinite(value) && Number(value) >= 0;

/** Return what is known of how an answer was written; what the page could not have written of it is left out. @param {any} one @returns {Partial<Turn>} */
function writtenOf({ life, tokens, thought, pace, error }) {
  return {
    ...(isLife(life) ? { life } : {}),
    ...(isCount(tokens) ? { tokens } : {}),
    ...(isCount(thought) ? { thought } : {}),
    ...(isPace(pace) ? { pace } : {}),
    ...(typeof error?.code === "string" && typeof error.message === "string" ? { error: { code: error.code, message: error.message } } : {}),
  };
}

/** @param {any} pace @returns {pace is number[]} */
const isPace = (pace) => Array.isArray(pace) && pace.length % 2 === 0 && pace.every((one, index) => (index % 2 ? Number.isFinite(one) : isCount(one)));

/** @param {any} life @returns {life is import("../chat/life.js").Life} */
function isLife(life) {
  const { first, stopped, pace, cuts, ended, byUser } = life ?? {};
  return (
    COUNTS.every((name) => isCount(life?.[name])) &&
    [life.model, life.note].every((text) => typeof text === "string") &&
    [first, stopped].every((time) => time === null || isCount(time)) &&
    typeof byUser === "boolean" && (ended === null || ENDS.includes(ended)) &&
    Array.isArray(pace) && pace.length <= MOST_BUCKETS && pace.every((count) => count === null || isCount(count)) &&
    Array.isArray(cuts) && cuts.every((cut) => CUT.every((name) => isCount(cut?.[name])))
  );
}

/** @param {any} parts @returns {import("../client.js").Part[]} */
function partsOf(parts) {
  if (!Array.isArray(parts)) wrong();
  return parts.map((part) => {
    if (part?.type === "text") return { type: "text", text: checked(part.text, "string") };
    if (part?.type === "image") return { type: "image", data: checked(part.data, "string") };
    return wrong();
  });
}
