// @ts-check
/** One turn of the model while it is received: a column per answer, with notes and figures below. */

import { ConnectionLostError, GatewayError } from "../client.js";
import { createColumn } from "./column.js";
import { copyOf, find, make } from "../shell/dom.js";

const AT_END = 80; // pixels from the end within which the page follows new text
let groups = 0; // number of groups of radio buttons; each group needs a name of its own

/** @typedef {ReturnType<typeof addAnswer>} Answer */

/**
 * Add an empty turn to the page; return the functions that fill it.
 * @param {HTMLElement} turns the list of turns
 * @param {HTMLElement} scroll the element that scrolls them
 * @param {{n?: number, logprobs?: boolean, response_format?: {type: string}}} options
 */
export function addAnswer(turns, scroll, { n = 1, logprobs = false, response_format }) {
  const root = copyOf("#answer");
  const figures = find(".figures", root);
  const acts = find(".acts", root);
  const note = find(".note", root);
  const json = Boolean(response_format?.type.startsWith("json"));
  const columns = Array.from({ length: n }, () => createColumn(logprobs || json));
  const begin = performance.now();
  let firstAt = 0;
  let pieces = 0;
  let frame = 0;
  for (const column of columns) find(".columns", root).append(column.root);
  if (n > 1) showChoices();
  find(".legend", root).hidden = !logprobs;
  root.classList.toggle("code", json);
  root.classList.add("streaming");
  turns.append(root);
  scroll.scrollTop = scroll.scrollHeight;

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

  /** Show the new text; called at most once per animation frame. */
  function paint() {
    frame = 0;
    keepingPlace(() => columns.forEach((column) => column.paint()));
  }

  /** Call `grow`; stay at the end of the text unless the user has scrolled up. @param {() => void} grow */
  function keepingPlace(grow) {
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < AT_END;
    grow();
    if (atEnd) scroll.scrollTop = scroll.scrollHeight;
  }

  function showLive() {
    const seconds = (performance.now() - firstAt) / 1000;
    const rate = pieces > 1 && seconds > 0 ? `${Math.round((pieces - 1) / seconds)} tokens/s` : "…";
    figures.textContent = `${rate} · first token after ${Math.round(firstAt - begin)} ms`;
  }

  function settle() {
    cancelAnimationFrame(frame);
    frame = 0;
    keepingPlace(() => columns.forEach((column) => column.end()));
    root.classList.remove("streaming");
  }

  /** @param {import("../client.js").Result} result @param {number} tokens @param {boolean} stopped */
  function endOf({ finishReason }, tokens, stopped) {
    if (finishReason === "cancelled")
      return `stopped by ${stopped ? "you" : "the gateway"} after ${tokens} tokens`;
    return finishReason === "length" && n === 1 ? `cut off at ${tokens} tokens` : `${tokens} tokens`;
  }

  /**
   * Tokens per second: the gateway's figure for one answer, measured here for several.
   * @param {import("../client.js").Result} result @param {number} tokens
   */
  function rateOf(result, tokens) {
    if (n === 1) return result.timing.tokens_per_second;
    return firstAt ? (1000 * (tokens - 1)) / (performance.now() - firstAt) : 0;
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

  /** @param {string} text @param {string} [code] @param {() => void} [retry] */
  function showNote(text, code, retry) {
    note.hidden = false;
    note.replaceChildren(text);
    if (code) note.append(" ", make("code", {}, code));
    if (retry) note.append(" ", make("button", { type: "button", class: "quiet", click: retry }, "Retry"));
  }

  return {
    root,
    acts,
    /** What is said of the answer below it. */
    figures: () => figures.textContent ?? "",
    /** Give up what is kept for it outside of its element. */
    clear: () => columns.forEach((column) => column.clear()),
    /** Show what the answer continues. @param {string} text */
    begin(text) {
      columns[0].add({ type: "text", channel: "answer", text });
      columns[0].paint();
    },
    /** Show an answer that has ended. @param {import("../store/tree.js").Turn} turn */
    restore({ content, reasoning, messages, figures: told, error, ended, ticket }) {
      if (messages) showRounds(messages);
      else {
        if (reasoning) columns[0].add({ type: "reasoning", channel: "reasoning", text: reasoning });
        if (typeof content === "string" && content) columns[0].add({ type: "text", channel: "answer", text: content });
      }
      settle();
      root.classList.remove("several");
      find(".legend", root).hidden = true;
      for (const { root: column } of columns.slice(1)) column.remove();
      find(".keep", columns[0].root).hidden = true;
      figures.textContent = told ?? "";
      if (error) showNote(error.message, error.code);
      else if (!ended && !ticket) showNote("The page was left before this answer had ended.");
    },
    /** Begin anew, because all of the answer comes again. */
    again() {
      for (const column of columns) column.empty();
      note.hidden = true;
      root.classList.add("streaming");
    },
    /** @param {import("../client.js").Progress} progress */
    progress(progress) {
      if (firstAt) return;
      if ("loading" in progress) {
        const part = progress.total ? `, ${Math.round((100 * progress.done) / progress.total)} %` : "";
        figures.textContent = `${progress.warmingUp ? "warming up" : "loading"} ${progress.loading}${part}`;
      } else if ("queued" in progress) figures.textContent = `number ${progress.queued} in the queue`;
      else if ("done" in progress && progress.total > 64)
        figures.textContent = `reading the prompt: ${progress.done} of ${progress.total} tokens`;
    },
    /** @param {import("../client.js").Chunk} chunk */
    add(chunk) {
      firstAt ||= performance.now();
      pieces += 1;
      columns[chunk.choice ?? 0]?.add(chunk);
      showLive();
      frame ||= requestAnimationFrame(paint);
    },
    /** @param {import("../client.js").ToolCall} call */
    call(call) {
      firstAt ||= performance.now();
      keepingPlace(() => columns[0].cardOf(call.index).show(call));
    },
    /** @param {import("../client.js").ToolCall} call @param {string} content */
    returned: (call, content) => keepingPlace(() => columns[0].card(call.index).returned(content)),
    /** @param {import("../client.js").ToolCall} call @param {AbortSignal} signal @param {boolean} focus */
    ask(call, signal, focus) {
      figures.textContent = "waiting for your answer";
      find(".unseen", root).textContent = `What does ${call.name} return?`;
      return columns[0].card(call.index).ask(signal, focus);
    },
    /** The text so far of the answer that the user has chosen to keep. */
    kept: () => (columns.find(({ root: column }) => find(".keep input", column).checked) ?? columns[0]).said(),
    /** End the choice between answers, because the conversation has gone on. */
    close() {
      for (const { root: column } of columns) {
        find(".keep input", column).disabled = true;
        find(".keep label span", column).textContent = "Kept";
      }
    },
    /** @param {import("../client.js").Result} result @param {boolean} stopped */
    finish(result, stopped) {
      settle();
      const tokens = result.usage.completion_tokens ?? pieces;
      const rate = rateOf(result, tokens);
      const parts = [endOf(result, tokens, stopped)];
      for (const [index, choice] of (result.choices ?? []).entries())
        if (choice.finishReason === "length") find(".end", columns[index]?.root).textContent = "cut off";
      if (n > 1) parts.unshift(`${n} answers`);
      if (result.finishReason === "tool_calls")
        parts.push("messages" in result ? "too many calls in a row" : "nobody answers this call");
      if (rate) parts.push(`${Math.round(rate)} tokens/s`);
      if (firstAt) parts.push(`first token after ${Math.round(firstAt - begin)} ms`);
      if (!find("#models").hidden) parts.push(result.model);
      figures.textContent = parts.join(" · ");
      find(".unseen", root).textContent = `Answered: ${figures.textContent}`;
    },
    /** @param {Error} error @param {() => void} [retry] */
    fail(error, retry) {
      settle();
      const lost = error instanceof ConnectionLostError;
      const kept = columns.some((column) => column.said()) ? " What came so far is kept." : "";
      keepingPlace(() => {
        const code = error instanceof GatewayError && !lost ? error.code : undefined;
        showNote(lost ? `The connection to the gateway was lost.${kept}` : error.message, code, retry);
        figures.textContent = pieces ? `${pieces} tokens` : "";
        // A turn without any text needs neither the choice between answers nor the legend.
        if (!kept) root.classList.add("empty-handed");
      });
    },
  };
}
