/**
 * A connection for `useChat` of TanStack AI: answers come from the gateway, without a server in between.
 *
 *     const connection = gatewayConnection("http://127.0.0.1:8765", { temperature: 0 });
 *     const { messages, sendMessage, stop } = useChat({ connection, tools });
 *
 * `stop` stops the model. Client tools run in the page, and their results go back to the model. With
 * `keep_on_close` and the `persistence` of the chat, an answer goes on when its page is loaded again.
 */

import { convertMessagesToModelMessages, EventType } from "@tanstack/ai/client";
import { clientOf, createKeeper, disown, own, parsed, resultText, resumedEvents, userTurn } from "./shared.js";

/**
 * @import { ConnectConnectionAdapter } from "@tanstack/ai-client"
 * @import { ContentPart, ModelMessage, StreamChunk } from "@tanstack/ai/client"
 * @import { GatewayError, Message, Progress, Result, Run, RunEvent, Ticket, ToolCall } from "../client.js"
 * @import { Fields, File, Gateway, Shown, Store } from "./shared.js"
 * @typedef {{threadId: string, runId: string, messageId: string}} Ids
 */

/** @type {Record<Result["finishReason"], "stop" | "length" | "tool_calls">} */
const REASONS = { stop: "stop", length: "length", tool_calls: "tool_calls", cancelled: "stop" };

/**
 * Return a connection to a gateway. Fields in the `forwardedProps` of a chat take precedence over those given here.
 *
 * @param {Gateway} gateway
 * @param {Fields & {storage?: Store}} [options] fields of each request; `storage` keeps what a reload needs, by
 *   default it is the page's sessionStorage
 * @returns {ConnectConnectionAdapter}
 */
export function gatewayConnection(gateway, { storage, ...fields } = {}) {
  const client = clientOf(gateway);
  /** @type {ReturnType<typeof createKeeper<{ticket: Ticket, threadId: string}>>} */
  const tickets = createKeeper(storage);
  return {
    async *connect(messages, data = {}, signal, context) {
      const tools = context?.clientTools?.map(({ name, description, parameters }) => ({
        ...{ name, description, parameters: /** @type {object} */ (parameters) },
      }));
      const request = { ...fields, ...(tools?.length ? { tools } : {}), ...conversation(messages), ...data };
      /** @param {Progress} progress */
      const onprogress = (progress) => {
        if ("started" in progress && run.ticket && request.keep_on_close) {
          own(run.id);
          tickets.keep(runId, { ticket: run.ticket, threadId });
        }
      };
      const run = client.generate({ ...request, onprogress, ...(signal ? { signal } : {}) });
      const { threadId = "gateway", runId = run.id } = context ?? {};
      yield* chunks(run, run.events(), { threadId, runId, messageId: run.id }, signal);
      disown(run.id);
      tickets.forget(runId);
    },
    async *joinRun(runId, signal) {
      const kept = tickets.kept(runId);
      if (!kept) throw new Error("the answer can't be resumed");
      if (!(await own(kept.ticket.id))) throw new Error("another page receives the answer");
      const run = client.resume(kept.ticket, signal ? { signal } : {});
      const events = await resumedEvents(run);
      yield* chunks(run, events, { threadId: kept.threadId, runId, messageId: run.id }, signal);
      disown(run.id);
      tickets.forget(runId);
    },
  };
}

/**
 * Yield a run as TanStack AI takes it.
 * @param {Run} run
 * @param {AsyncGenerator<RunEvent, void, void>} events
 * @param {Ids} ids
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<StreamChunk, void, void>}
 */
async function* chunks(run, events, { threadId, runId, messageId }, signal) {
  const writer = createWriter({ threadId, runId, messageId });
  yield { type: EventType.RUN_STARTED, threadId, runId };
  try {
    for await (const event of events) yield* writer.chunks(event);
    yield* writer.end(await run.result);
  } catch (caught) {
    const { message, code } = /** @type {GatewayError} */ (caught);
    // Thrown, it would overtake text that the chat has not shown yet.
    if (!signal?.aborted) yield { type: EventType.RUN_ERROR, threadId, runId, message, code };
  }
}

/** Return what turns the events of one answer into chunks. @param {Ids} ids */
function createWriter({ threadId, runId, messageId }) {
  let speaks = false;
  let thinks = false;
  /** @type {Set<string>} */
  const begun = new Set();
  const reasoningId = `${messageId}-reasoning`;

  /** @returns {Generator<StreamChunk>} */
  function* endThinking() {
    if (!thinks) return;
    thinks = false;
    yield { type: EventType.REASONING_MESSAGE_END, messageId: reasoningId };
    yield { type: EventType.REASONING_END, messageId: reasoningId };
  }

  /** @returns {Generator<StreamChunk>} */
  function* endText() {
    if (speaks) yield { type: EventType.TEXT_MESSAGE_END, messageId };
    speaks = false;
  }

  /** @param {string} delta @returns {Generator<StreamChunk>} */
  function* think(delta) {
    if (!thinks) {
      yield { type: EventType.REASONING_START, messageId: reasoningId };
      yield { type: EventType.REASONING_MESSAGE_START, messageId: reasoningId, role: "reasoning" };
    }
    thinks = true;
    yield { type: EventType.REASONING_MESSAGE_CONTENT, messageId: reasoningId, delta };
  }

  /** @param {string} delta @returns {Generator<StreamChunk>} */
  function* speak(delta) {
    yield* endThinking();
    if (!speaks) yield { type: EventType.TEXT_MESSAGE_START, messageId, role: "assistant" };
    speaks = true;
    yield { type: EventType.TEXT_MESSAGE_CONTENT, messageId, delta };
  }

  /** @param {ToolCall} call @param {string} delta @returns {Generator<StreamChunk>} */
  function* write({ id: toolCallId, name }, delta) {
    yield* endThinking();
    yield* endText();
    if (!begun.has(toolCallId)) {
      begun.add(toolCallId);
      yield { type: EventType.TOOL_CALL_START, toolCallId, toolCallName: name, parentMessageId: messageId };
    }
    if (delta) yield { type: EventType.TOOL_CALL_ARGS, toolCallId, delta };
  }

  /** Hand a call to the page, which runs its tool. @param {ToolCall} call @returns {Generator<StreamChunk>} */
  function* give(call) {
    const { id: toolCallId, name: toolName, arguments: text } = call;
    const input = parsed(text);
    if (!begun.has(toolCallId)) yield* write(call, text);
    yield { type: EventType.TOOL_CALL_END, toolCallId, input };
    yield { type: EventType.CUSTOM, name: "tool-input-available", value: { toolCallId, toolName, input } };
  }

  return {
    /** @param {RunEvent} event @returns {Generator<StreamChunk>} */
    *chunks(event) {
      if (event.type === "reasoning" && !event.choice) yield* think(event.text);
      else if (event.type === "text" && !event.choice) yield* speak(event.text);
      else if (event.type === "call" && !event.call.error) yield* write(event.call, event.delta);
    },
    /** @param {Result} result @returns {Generator<StreamChunk>} */
    *end({ finishReason, model, toolCalls, usage }) {
      yield* endThinking();
      yield* endText();
      for (const call of toolCalls) yield* give(call);
      yield {
        type: EventType.RUN_FINISHED,
        ...{ threadId, runId, model, finishReason: REASONS[finishReason] },
        usage: {
          promptTokens: usage.prompt_tokens,
          completionTokens: usage.completion_tokens,
          totalTokens: usage.total_tokens,
        },
      };
    },
  };
}

/**
 * Return messages of `useChat` as those of the gateway, and the files beside them.
 * @param {Parameters<ConnectConnectionAdapter["connect"]>[0]} messages
 * @returns {{messages: Message[], files?: File[]}}
 */
export function conversation(messages) {
  /** @type {File[]} */
  const files = [];
  const turns = convertMessagesToModelMessages(messages).map((message) => {
    const { message: turn, files: more } = turnOf(message);
    files.push(...more);
    return turn;
  });
  return files.length ? { messages: turns, files } : { messages: turns };
}

/** @param {ModelMessage} message @returns {{message: Message, files: File[]}} */
function turnOf({ role, content, toolCalls = [], toolCallId = "", thinking = [] }) {
  const parts = typeof content === "string" ? [{ text: content }] : (content ?? []).map(shown);
  if (role === "user") return userTurn(parts);
  const text = parts.map((part) => ("text" in part ? part.text : "")).join("");
  if (role === "tool") return { message: { role, content: resultText(text), tool_call_id: toolCallId }, files: [] };
  const thoughts = thinking.map((part) => part.content).join("");
  const calls = toolCalls.map(({ id, function: { name, arguments: given } }) => ({
    ...{ id, type: /** @type {const} */ ("function"), function: { name, arguments: given } },
  }));
  const more = calls.length ? { tool_calls: calls, ...(thoughts ? { reasoning_content: thoughts } : {}) } : {};
  return { message: { role, content: text, ...more }, files: [] };
}

/** @param {ContentPart} part @returns {Shown} */
function shown(part) {
  if (part.type === "text") return { text: part.content };
  const { type, value, mimeType = part.type } = part.source;
  return { url: type === "data" ? `data:${mimeType};base64,${value}` : value, type: mimeType };
}
