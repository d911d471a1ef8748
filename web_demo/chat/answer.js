// @ts-check
/** One turn of the model while it is received: a column per answer, with notes and its life line below. */

import { ConnectionLostError, GatewayError } from "../client.js";
import { copyOf, find, make } from "../shell/dom.js";
import { plan, unplan } from "../shell/frames.js";
import { HEARD, preferred } from "../shell/preferences.js";
import { say } from "../shell/speaker.js";
import { createColumn } from "./column.js";
import { createLifeline } from "./lifeline.js";
import { createRecording } from "./recording.js";

export const PAINT_MS = 100; // between two paintings of new text: faster than anybody reads, and each frame costs
const MARKED_PAINT_MS = 150; // the same where pieces are marked: the browser looks at every mark in each frame
const IDLE_MS = 700; // without new text, after which the caret says that more may come
let groups = 0; // number of groups of radio buttons; each group needs a name of its own

const remedies = () => import("./remedies.js").catch(() => null); // asked for when an answer begins, while the gateway is there

/** @typedef {ReturnType<typeof addAnswer>} Answer */
/** @typedef {import("../store/tree.js").Turn} Turn */

/**
 * Add an empty turn to the page; return the functions that fill it.
 * @param {HTMLElement} turns the list of turns
 * @param {import("./follow.js").Follower} follower
 * @param {{n?: number, logprobs?: boolean, response_format?: {type: string}}} options
 */
export function addAnswer(turns, follower, { n = 1, logprobs = false, response_format }) {
  const root = copyOf("#answer");
  const acts = find(".acts", root);
  const note = find(".note", root);
  const json = Boolean(response_format?.type.startsWith("json"));
  let columns = Array.from({ length: n }, () => createColumn(json, logprobs));
  const recording = createRecording();
  const life = createLifeline(find(".figures", root), n, !find("#models").hidden);
  const every = logprobs ? MARKED_PAINT_MS : PAINT_MS;
  let paintedAt = -every;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let idle;
  for (const column of columns) find(".columns", root).append(column.root);
  if (n > 1) showChoices();
  find(".legend", root).hidden = !logprobs;
  root.classList.toggle("code", json);
  turns.append(root);

  function showChoices() {
    root.classList.add("several");
    find(".columns", root).role = "group";
    find(".columns", root).ariaLabel = "Answers, of which one is kept";
    groups += 1;
    for (const [index, { root: column }] of columns.entries()) {
      find(".keep", column).hidden = false;
      const button = find(".keep input", column);
      button.name = `keep-${groups}`;
      button.checked = index === 0;
    }
  }

  /** The index of the answer that is kept. */
  const chosen = () => Math.max(0, columns.findIndex(({ root: column }) => find(".keep input", column).checked));

  function paint() {
    paintedAt = performance.now();
    flow();
    columns.forEach((column) => column.paint());
    life.drawn();
  }

  /** Let the caret rest while text comes, and say that more may come when none has come for a moment. */
  function flow() {
    if (idle === undefined) {
      root.classList.remove("idle");
      idle = setTimeout(rest, IDLE_MS);
    }
  }

  function rest() {
    const left = paintedAt + IDLE_MS - performance.now();
    idle = left > 1 ? setTimeout(rest, left) : undefined;
    if (idle !== undefined) return;
    root.classList.add("idle");
    life.later();
    for (const column of columns) column.mark();
  }

  function settle() {
    unplan(paint);
    clearTimeout(idle);
    idle = undefined;
    columns.forEach((column) => column.end());
    root.classList.remove("streaming", "idle", "cut");
  }

  /** Show how sure the model was of an answer that has ended. @param {Turn} turn */
  async function mark(turn) {
    const made = await import("./marked_again.js").then((all) => all.columnOf(turn, json)).catch(() => null); // it stays without
    if (!made || !root.isConnected) return made?.clear();
    columns[0].root.replaceWith(made.root);
    columns = [made];
    find(".legend", root).hidden = false;
  }

  /** Show the messages of an answer with tools. @param {import("../client.js").Message[]} messages */
  function showRounds(messages) {
    const [column] = columns;
    let index = 0;
    for (const message of messages) {
      if (message.role === "tool") {
        column.card(index)?.returned(String(message.content));
        index += 1;
      } else if (message.role === "assistant") {
        index = 0;
        if (message.reasoning_content) column.add({ type: "reasoning", channel: "reasoning", text: message.reasoning_content });
        if (typeof message.content === "string") column.add({ type: "text", channel: "answer", text: message.content });
        column.paint();
        for (const [at, { id, function: called }] of (message.tool_calls ?? []).entries()) {
          const given = typeof called.arguments === "string" ? called.arguments : JSON.stringify(called.arguments);
          column.cardOf(at).show({ index: at, id, name: called.name, arguments: given, complete: true });
        }
      }
    }
  }

  /** @param {string} text @param {string} [code] @param {() => void} [retry] @param {boolean} [leftOut] whether the next questions don't tell the model of it */
  function showNote(text, code, retry, leftOut) {
    note.hidden = false;
    note.replaceChildren(text);
    if (code) note.append(" ", make("code", {}, code));
    if (code) {
      const remedy = make("span", { class: "remedy" });
      note.append(" ", remedy);
      remedies().then((all) => remedy.append(all?.remedyOf(code) ?? ""));
    }
    if (leftOut) note.append(" ", make("span", { class: "remedy" }, "It is left out of what the model reads next."));
    if (retry) note.append(" ", make("button", { type: "button", class: "quiet", click: retry }, "Retry"));
  }

  return {
    root,
    acts,
    /** What is said of the answer below it. */
    figures: life.sentence,
    life: () => life.record.life,
    /** Give up what is kept for it outside of its element. */
    clear: () => columns.forEach((column) => column.clear()),
    /** Show what the answer continues. @param {string} text */
    begin(text) {
      const before = /** @type {const} */ ({ type: "text", channel: "answer", text });
      recording.add(performance.now(), before);
      columns[0].add(before);
      columns[0].paint();
    },
    /** Expect the answer from now on. @param {boolean} connected */
    start(connected) {
      root.classList.add("streaming", "idle");
      root.ariaBusy = "true";
      note.hidden = true;
      remedies();
      this.connection(connected);
      say("The model is answering.");
      follower.toEnd();
    },
    /** Show the messages of rounds that are over. */
    rounds: showRounds,
    /** @param {boolean} open */
    connection(open) {
      life.record.connection(open, performance.now());
      root.classList.toggle("cut", !open);
      life.later();
    },
    /** Show an answer that has ended. @param {Turn} turn */
    restore(turn) {
      const { content, reasoning, thought, messages, figures: told, life: lived, error, ended, ticket } = turn;
      if (messages) showRounds(messages);
      else {
        if (reasoning) columns[0].add({ type: "reasoning", channel: "reasoning", text: reasoning });
        if (typeof content === "string" && content) columns[0].add({ type: "text", channel: "answer", text: content });
      }
      if (turn.odds && !messages) mark(turn);
      settle();
      if (thought) columns[0].thoughtFor(thought);
      root.classList.remove("several");
      find(".legend", root).hidden = true;
      for (const { root: column } of columns.slice(1)) column.remove();
      find(".keep", columns[0].root).hidden = true;
      if (lived) life.restore(lived);
      else life.say(told ?? "");
      if (error) showNote(error.message, error.code, undefined, !content && !messages);
      else if (!ended && !ticket) showNote("The page was left before this answer had ended.");
    },
    /** Say that another page writes it. @param {boolean} [seen] whether it is shown meanwhile */
    elsewhere(seen) {
      if (!seen) settle();
      showNote("It is written in another tab.");
    },
    /** Begin anew, because all of the answer comes again. */
    again() {
      recording.clear();
      columns.forEach((old) => old.clear());
      columns = columns.map(() => createColumn(json, logprobs));
      find(".columns", root).replaceChildren(...columns.map((one) => one.root));
      find(".legend", root).hidden = !logprobs;
      if (n > 1) showChoices();
      note.hidden = true;
    },
    /** @param {import("../client.js").Progress} progress */
    progress(progress) {
      life.record.progress(progress);
      if ("done" in progress && !("loading" in progress)) life.later();
      else life.draw();
    },
    /** What came before a connection was lost comes again. */
    resumed() {
      life.record.resumed(performance.now());
      root.classList.remove("cut");
      life.later();
    },
    /** @param {import("../client.js").Chunk} chunk */
    add(chunk) {
      const now = chunk.at ?? performance.now();
      life.record.token(now, chunk.text.length);
      recording.add(now, chunk);
      columns[chunk.choice ?? 0]?.add(chunk);
      plan(paint, paintedAt + every - performance.now()); // and the life line with it
    },
    /** @param {import("../client.js").ToolCall} call @param {string} delta */
    call(call, delta) {
      if (delta) life.record.token(performance.now());
      life.later();
      columns[0].cardOf(call.index).show(call);
    },
    /** @param {import("../client.js").ToolCall} call @param {string} content */
    returned: (call, content) => columns[0].card(call.index)?.returned(content),
    /** @param {import("../client.js").ToolCall} call @param {AbortSignal} signal @param {boolean} focus */
    ask(call, signal, focus) {
      life.say("waiting for your answer");
      say(`What does ${call.name} return?`);
      return columns[0].card(call.index).ask(signal, focus);
    },
    stopping: () => life.record.stopping(performance.now()),
    /** The text so far of the answer that the user has chosen to keep. */
    kept: () => columns[chosen()].said(),
    /** How sure the model was of it, undefined where that isn't known. */
    odds: () => columns[chosen()].odds(),
    /** The pace of that answer. */
    pace: () => recording.of(chosen()),
    /** For how long it has thought, in milliseconds. */
    thought: () => columns[0].thought(),
    /** End the choice between answers, because the conversation has gone on. */
    close() {
      for (const { root: column } of columns) {
        find(".keep input", column).disabled = true;
        find(".keep label span", column).textContent = "Kept";
      }
    },
    /** @param {Parameters<typeof life.record.finish>[0]} result */
    finish(result) {
      settle();
      root.ariaBusy = "false";
      for (const [index, choice] of (result.choices ?? []).entries())
        if (choice.finishReason === "length") find(".end", columns[index]?.root).textContent = "cut off";
      life.record.finish(result, performance.now());
      if (result.finishReason === "tool_calls")
        life.record.life.note = "messages" in result ? "too many calls in a row" : "nobody answers this call";
      life.end();
      say(`Answered: ${life.sentence()}.`);
      if (preferred(HEARD, false)) say(this.kept());
    },
    /** @param {Error} error @param {() => void} [retry] */
    fail(error, retry) {
      settle();
      root.ariaBusy = "false";
      const lost = error instanceof ConnectionLostError;
      const kept = columns.some((column) => column.said()) ? " What came so far is kept." : "";
      life.record.fail();
      const code = error instanceof GatewayError && !lost ? error.code : undefined;
      const goesOn = kept || columns[0].card(0); // with a call, earlier rounds do
      showNote(lost ? `The connection to the gateway was lost.${kept}` : error.message, code, retry, !goesOn);
      life.end();
      // A turn without any text needs neither the choice between answers nor the legend.
      if (!kept) root.classList.add("empty-handed");
    },
  };
}
