/**
 * A transport for `useChat` of the AI SDK: answers come from the gateway, without a server in between.
 *
 *     const transport = new GatewayTransport("http://127.0.0.1:8765", { temperature: 0 });
 *     const { messages, sendMessage, stop } = useChat({ transport });
 *
 * `stop` stops the model. Calls of `tools` are the page's: `onToolCall` and `addToolOutput` answer them. With
 * `keep_on_close`, `useChat({ id, transport, resume: true })` goes on with an answer when its page is loaded again.
 */

import { answerTurns, clientOf, createKeeper, disown, own, parsed, resumedEvents, streamOf, userTurn } from "./shared.js";

/**
 * @import { ChatTransport, FinishReason, UIMessage, UIMessageChunk } from "ai"
 * @import { Client, Message, Progress, Result, Run, RunEvent, Ticket, ToolCall } from "../client.js"
 * @import { Fields, File, Gateway, Shown, Store } from "./shared.js"
 * @typedef {Fields & {messageMetadata?: (result: Result) => unknown, storage?: Store}} TransportOptions
 *   `messageMetadata` makes the metadata of an answer from its usage, timing and model. `storage` keeps what a
 *   reload needs; by default it is the page's sessionStorage
 * @typedef {UIMessage["parts"]} Parts
 * @typedef {{ticket: Ticket, messageId: string, before: Parts}} Kept An answer that another page may resume;
 *   `before` are the parts of its message that were there before
 */

/** @type {Record<Result["finishReason"], FinishReason>} */
const REASONS = { stop: "stop", length: "length", tool_calls: "tool-calls", cancelled: "other" };

/** @implements {ChatTransport<UIMessage>} */
export class GatewayTransport {
  /** What is resumed comes again from its beginning. */
  resumeStreamIsReplay = true;
  #client;
  #fields;
  #metadata;
  #tickets;

  /** @param {Gateway} gateway @param {TransportOptions} [options] fields of each request, and callbacks */
  constructor(gateway, { messageMetadata, storage, ...fields } = {}) {
    this.#client = clientOf(gateway);
    this.#fields = fields;
    this.#metadata = messageMetadata;
    /** @type {ReturnType<typeof createKeeper<Kept>>} */
    this.#tickets = createKeeper(storage);
  }

  /**
   * Start an answer; fields in `body` take precedence over those of the transport.
   * @param {Parameters<ChatTransport<UIMessage>["sendMessages"]>[0]} options
   * @returns {Promise<ReadableStream<UIMessageChunk>>}
   */
  async sendMessages({ chatId, messages, abortSignal: signal, body }) {
    const last = messages.at(-1);
    const before = last?.role === "assistant" ? last : undefined; // its calls are answered now
    const request = { ...this.#fields, ...conversation(messages), ...body };
    /** @param {Progress} progress */
    const onprogress = (progress) => {
      if (!("started" in progress) || !run.ticket || !request.keep_on_close) return;
      own(run.id);
      this.#tickets.keep(chatId, { ticket: run.ticket, messageId: before?.id ?? run.id, before: before?.parts ?? [] });
    };
    const run = this.#client.generate({ ...request, onprogress, ...(signal ? { signal } : {}) });
    return streamOf(this.#chunks(chatId, run, run.events(), before?.id ?? run.id), run.cancel);
  }

  /**
   * Go on with an answer that was running when its page was left, or when the gateway was lost.
   * @param {Parameters<ChatTransport<UIMessage>["reconnectToStream"]>[0]} options
   * @returns {Promise<ReadableStream<UIMessageChunk> | null>} null if there is none
   */
  async reconnectToStream({ chatId, abortSignal: signal }) {
    // In StrictMode a first call is aborted at once, and that must not stop the model.
    await null;
    const kept = this.#tickets.kept(chatId);
    if (!kept || signal?.aborted || !(await own(kept.ticket.id)) || signal?.aborted) return null;
    const run = this.#client.resume(kept.ticket, signal ? { signal } : {});
    try {
      const events = await resumedEvents(run);
      return streamOf(this.#chunks(chatId, run, events, kept.messageId, kept.before), run.cancel);
    } catch (error) {
      if (isLost(error)) throw disconnect(error); // its ticket is kept for another attempt
      disown(run.id);
      this.#tickets.forget(chatId);
      return null; // the gateway has forgotten it
    }
  }

  /**
   * Yield a run as the AI SDK takes it.
   * @param {string} chatId
   * @param {Run} run
   * @param {AsyncGenerator<RunEvent, void, void>} events
   * @param {string} messageId
   * @param {Parts} [before] the parts of the message that come again first
   * @returns {AsyncGenerator<UIMessageChunk, void, void>}
   */
  async *#chunks(chatId, run, events, messageId, before = []) {
    const writer = createWriter();
    let lost = false;
    try {
      yield { type: "start", messageId };
      for (const part of before) yield* again(part);
      yield { type: "start-step" };
      for await (const event of events) yield* writer.chunks(event);
      const result = await run.result;
      yield* writer.end(result);
      yield { type: "finish-step" };
      const messageMetadata = this.#metadata?.(result);
      const more = messageMetadata === undefined ? {} : { messageMetadata };
      yield { type: "finish", finishReason: REASONS[result.finishReason], ...more };
    } catch (error) {
      lost = isLost(error);
      throw lost ? disconnect(error) : error;
    } finally {
      run.cancel();
      if (!lost) disown(run.id);
      if (!lost) this.#tickets.forget(chatId);
    }
  }
}

/** @param {unknown} error */
const isLost = (error) => /** @type {any} */ (error).code === "connection_lost";

/**
 * Return what `useChat` takes for a disconnect, after which it tries to resume.
 * @param {unknown} cause
 */
const disconnect = (cause) => new TypeError("network error: the connection to the gateway was lost", { cause });

/** Return what turns the events of one answer into chunks. */
function createWriter() {
  /** The part that is open: its kind, and its id. @type {{kind: "text" | "reasoning", id: string} | null} */
  let open = null;
  let parts = 0;
  /** @type {Set<string>} */
  const begun = new Set();
  /** @type {Set<string>} */
  const ended = new Set();

  /** @returns {Generator<UIMessageChunk>} */
  function* close() {
    if (open) yield { type: `${open.kind}-end`, id: open.id };
    open = null;
  }

  /** @param {"text" | "reasoning"} kind @param {string} delta @returns {Generator<UIMessageChunk>} */
  function* write(kind, delta) {
    if (open?.kind !== kind) {
      yield* close();
      parts += 1;
      open = { kind, id: `${parts}` };
      yield { type: `${kind}-start`, id: open.id };
    }
    yield { type: `${kind}-delta`, id: open.id, delta };
  }

  /** @param {ToolCall} call @param {string} delta @returns {Generator<UIMessageChunk>} */
  function* writeCall(call, delta) {
    const { id: toolCallId, name: toolName } = call;
    yield* close();
    if (!begun.has(toolCallId)) yield { type: "tool-input-start", toolCallId, toolName };
    begun.add(toolCallId);
    if (delta) yield { type: "tool-input-delta", toolCallId, inputTextDelta: delta };
    if (ended.has(toolCallId) || !(call.complete || call.error)) return;
    ended.add(toolCallId);
    const input = parsed(call.arguments);
    if (!call.error) yield { type: "tool-input-available", toolCallId, toolName, input };
    else yield { type: "tool-input-error", toolCallId, toolName, input: call.text, errorText: call.error };
  }

  return {
    /** @param {RunEvent} event @returns {Generator<UIMessageChunk>} */
    *chunks(event) {
      if (event.type === "text" || event.type === "reasoning") {
        if (!event.choice) yield* write(event.type, event.text);
      } else if (event.type === "call") yield* writeCall(event.call, event.delta);
      else if (event.type === "progress") yield { type: "data-progress", data: event.progress, transient: true };
    },
    /** @param {Result} result @returns {Generator<UIMessageChunk>} */
    *end({ toolCalls, brokenCalls }) {
      for (const call of [...toolCalls, ...brokenCalls]) yield* writeCall(call, "");
      yield* close();
    },
  };
}

/** Yield the chunks of a part that is complete. @param {Parts[number]} part @returns {Generator<UIMessageChunk>} */
function* again(part) {
  if (part.type === "step-start") yield { type: "start-step" };
  else if (part.type === "text" || part.type === "reasoning") {
    const id = `before-${crypto.randomUUID()}`;
    yield { type: `${part.type}-start`, id };
    yield { type: `${part.type}-delta`, id, delta: part.text };
    yield { type: `${part.type}-end`, id };
  } else if ("toolCallId" in part) {
    const { toolCallId } = part;
    // Not as available, because the page has answered it.
    yield { type: "tool-input-start", toolCallId, toolName: nameOf(part) };
    yield { type: "tool-input-delta", toolCallId, inputTextDelta: JSON.stringify(part.input ?? {}) };
    if (part.state === "output-available") yield { type: "tool-output-available", toolCallId, output: part.output };
    else yield { type: "tool-output-error", toolCallId, errorText: part.errorText ?? "" };
  }
}

/** @param {{type: string, toolName?: string}} part */
const nameOf = (part) => part.toolName ?? part.type.slice("tool-".length);

/**
 * Return messages of `useChat` as those of the gateway, and the files beside them.
 * @param {UIMessage[]} messages
 * @returns {{messages: Message[], files?: File[]}}
 */
export function conversation(messages) {
  /** @type {File[]} */
  const files = [];
  /** @type {Message[]} */
  const turns = [];
  for (const { role, parts } of messages) {
    if (role === "assistant") turns.push(...answerTurns(stepsOf(parts)));
    else if (role === "system") turns.push({ role, content: textOf(parts) });
    else {
      const turn = userTurn(parts.flatMap(shown));
      turns.push(turn.message);
      files.push(...turn.files);
    }
  }
  return files.length ? { messages: turns, files } : { messages: turns };
}

/** @param {Parts[number]} part @returns {Shown[]} */
function shown(part) {
  if (part.type === "text") return [{ text: part.text }];
  return part.type === "file" ? [{ url: part.url, type: part.mediaType, name: part.filename }] : [];
}

/** @param {Parts} parts @param {"text" | "reasoning"} [type] */
function textOf(parts, type = "text") {
  return parts.map((part) => (part.type === type ? part.text : "")).join("");
}

/** @param {Parts} parts */
function stepsOf(parts) {
  /** @type {Parts[]} */
  const steps = [[]];
  for (const part of parts) {
    if (part.type === "step-start") steps.push([]);
    else steps.at(-1)?.push(part);
  }
  return steps.map((step) => {
    return { text: textOf(step), reasoning: textOf(step, "reasoning"), calls: step.flatMap(answeredCall) };
  });
}

/** Return a call that has a result; the model can't be shown another. @param {Parts[number]} part */
function answeredCall(part) {
  if (!("toolCallId" in part) || !part.state.startsWith("output-")) return [];
  const { toolCallId: id, state, input } = part;
  const error = part.errorText ?? "the user has refused the call";
  return [{ id, name: nameOf(part), input, result: state === "output-available" ? part.output : { error } }];
}
