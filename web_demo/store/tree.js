// @ts-check
/** A conversation as a tree of turns: which are shown, which stand beside each other. No I/O. */

/**
 * A turn of the user, or of the model. `parent` is the id of the turn before it, null of the first ones.
 * Turns with the same parent are siblings: other versions of each other.
 * @typedef {{
 *   id: string, conversation: string, parent: string | null, role: "user" | "assistant", made: number,
 *   content: string | import("../client.js").Part[], reasoning?: string,
 *   messages?: import("../client.js").Message[], figures?: string, life?: import("../chat/life.js").Life, thought?: number, model?: string, tokens?: number,
 *   ended?: "stop" | "length" | "tool_calls" | "cancelled" | "error", error?: Fault, options?: object,
 *   asked?: import("../settings/values.js").Values, request?: object, pace?: number[], odds?: import("../chat/kept_odds.js").KeptPiece[],
 *   ticket?: import("../client.js").Ticket | null,
 * }} Turn `messages` are what an answer with tools adds to a prompt; `ticket` is of an answer that is
 *   still being written; `thought` is the time of its thinking, in milliseconds; `tokens` are those of the
 *   conversation up to its end; `asked` are the settings of an answer with tools, for a page that goes on with it;
 *   `request` is what was asked for with the messages, `pace` is what recording.js has
 * @typedef {{code: string, message: string}} Fault
 * @typedef {{
 *   id: string, title: string, named: boolean, made: number, changed: number, leaf: string | null,
 * }} Conversation `leaf` is the last of the shown turns; `named` says that a person gave the title
 */

const TITLE = 60; // characters

/** Return the turns from the first one to `leaf`. @param {Turn[]} turns @param {string | null} leaf */
export const pathTo = (turns, leaf) => createTree(turns).path(leaf);

/**
 * Hold the turns of a conversation so that what is asked of one takes no look at all the others.
 * @param {Turn[]} [given]
 */
export function createTree(given = []) {
  /** @type {Map<string, Turn>} */
  const byId = new Map();
  /** The turns below each one, the oldest first. @type {Map<string | null, Turn[]>} */
  const below = new Map();
  /** The newest path that was asked for, and its leaf. @type {{leaf: string | null, path: readonly Turn[]}} */
  let newest = { leaf: null, path: [] };
  for (const turn of [...given].sort(byAge)) add(turn);

  /** Add a turn that is newer than all others. @param {Turn} turn */
  function add(turn) {
    byId.set(turn.id, turn);
    const beside = below.get(turn.parent);
    if (beside) beside.push(turn);
    else below.set(turn.parent, [turn]);
  }

  /** @param {string | null} leaf @returns {readonly Turn[]} */
  function pathOf(leaf) {
    const last = leaf === null ? undefined : byId.get(leaf);
    if (!last) return [];
    // In a file from elsewhere, a turn may be above itself.
    if (last.parent === newest.leaf && !newest.path.includes(last)) return [...newest.path, last];
    /** @type {Turn[]} */
    const path = [];
    const seen = new Set();
    for (let turn = byId.get(last.id); turn && !seen.has(turn.id); turn = turn.parent === null ? undefined : byId.get(turn.parent)) {
      seen.add(turn.id);
      path.push(turn);
    }
    return path.reverse();
  }

  return {
    add,
    all: () => [...byId.values()],
    /** The turns from the first one to a leaf. @param {string | null} leaf */
    path(leaf) {
      if (newest.leaf !== leaf) newest = { leaf, path: pathOf(leaf) };
      return newest.path;
    },
    /** The versions of a turn, itself included, the oldest first. @param {Turn} turn */
    siblings: ({ parent, role }) => (below.get(parent) ?? []).filter((turn) => turn.role === role),
    /** The newest last turn below a turn, or itself. @param {string} id */
    leafBelow(id) {
      const seen = new Set();
      let at = id;
      for (let last; !seen.has(at) && (last = below.get(at)?.at(-1)); at = last.id) seen.add(at);
      return at;
    },
  };
}

/**
 * Return the messages of a prompt. A turn whose answer has no text, and the question before it, are left
 * out, because models take only turns in pairs; `omitted` counts the turns that were.
 * @param {readonly Turn[]} path
 */
export function messagesOf(path) {
  /** @type {import("../client.js").Message[]} */
  const messages = [];
  let omitted = 0;
  for (const [index, turn] of path.entries()) {
    if (turn.role === "user") {
      const next = path[index + 1];
      if (next && !answers(next)) {
        omitted += 2;
        continue;
      }
      messages.push({ role: "user", content: turn.content });
    } else if (answers(turn)) messages.push(...(turn.messages ?? [{ role: "assistant", content: turn.content }]));
  }
  return { messages, omitted };
}

/** Whether an answer has something that can be part of a prompt. @param {Turn} turn */
const answers = (turn) => Boolean(turn.messages?.length || textOf(turn));

/** Return the text of a turn, without its attachments. @param {Pick<Turn, "content">} turn */
export function textOf({ content }) {
  if (typeof content === "string") return content;
  const last = content.at(-1);
  const alone = content.filter(({ type }) => type === "text");
  return last?.type === "text" && (alone.length === 1 || content.length > 1) ? last.text : "";
}

/** Return a title for a conversation that begins with a text. @param {string} text */
export function titleOf(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  if (line.length <= TITLE) return line || "Untitled";
  const space = line.lastIndexOf(" ", TITLE);
  return `${line.slice(0, space > TITLE / 2 ? space : TITLE)}…`;
}

/**
 * Return the conversations that have all words of a query, in their titles or turns, the newest first.
 * @param {Conversation[]} conversations @param {Turn[]} turns @param {string} query
 */
export function searched(conversations, turns, query) {
  const words = query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const texts = new Map(conversations.map(({ id, title }) => [id, title.toLocaleLowerCase()]));
  if (words.length)
    for (const turn of turns)
      texts.set(turn.conversation, `${texts.get(turn.conversation) ?? ""}\n${textOf(turn).toLocaleLowerCase()}`);
  const found = conversations.filter(({ id }) => words.every((word) => texts.get(id)?.includes(word)));
  return found.sort((one, other) => other.changed - one.changed);
}

/** @param {{made: number, id: string}} one @param {{made: number, id: string}} other */
const byAge = (one, other) => one.made - other.made || (one.id < other.id ? -1 : 1);
