/**
 * A model for assistant-ui's local runtime: answers come from the gateway, without a server in between.
 *
 *     const model = gatewayModel("http://127.0.0.1:8765", { temperature: 0 });
 *     const runtime = useLocalRuntime(model);
 *
 * Stopping a run stops the model. Tools with `execute` run in the page, and the model goes on with their results;
 * others wait for `addResult`. With `keep_on_close` and the model's `history`, a thread is there again when its page
 * is loaded again, and its running answer goes on:
 *
 *     const runtime = useLocalRuntime(model, { adapters: { history: model.history } });
 */

import { runTools } from "../tool_loop.js";
import { answerTurns, clientOf, createKeeper, disown, own, parsed, userTurn } from "./shared.js";

/**
 * @import {
 *   ChatModelAdapter, ChatModelRunOptions, ChatModelRunResult, ExportedMessageRepository, ModelContext,
 *   ThreadHistoryAdapter
 * } from "@assistant-ui/react"
 * @import { Client, GatewayError, Message, Result, Ticket, ToolCall } from "../client.js"
 * @import { Tool, ToolRunEvent } from "../tool_loop.js"
 * @import { Fields, File, Gateway, Shown, Store } from "./shared.js"
 * @typedef {ChatModelRunOptions["messages"][number]} ThreadMessage
 * @typedef {ThreadMessage["content"][number]} ThreadPart
 * @typedef {Extract<ThreadPart, {type: "tool-call"}>} CallPart
 * @typedef {NonNullable<ChatModelRunResult["content"]>[number]} AnswerPart
 * @typedef {ExportedMessageRepository["messages"][number]} Item A message of a thread, with its parent's id
 * @typedef {{ticket: Ticket, parentId: string | null, before: readonly AnswerPart[]}} Kept An answer that another page
 *   may resume; `parentId` is of the message before its own, and `before` are the parts that its own had already
 * @typedef {Fields & {id?: string, storage?: Store}} ModelOptions `id` names the thread whose `history` this is.
 *   `storage` keeps what a reload needs; by default it is the page's sessionStorage
 */

/** @type {Record<Result["finishReason"], NonNullable<ChatModelRunResult["status"]>>} */
const STATUSES = {
  stop: { type: "complete", reason: "stop" },
  length: { type: "incomplete", reason: "length" },
  tool_calls: { type: "requires-action", reason: "tool-calls" },
  cancelled: { type: "incomplete", reason: "cancelled" },
};

/**
 * Return a model that asks a gateway, and the history of one thread. Settings of the model context take precedence
 * over the fields of `options`.
 *
 * @param {Gateway} gateway
 * @param {ModelOptions} [options] fields of each request, and what is kept
 * @returns {ChatModelAdapter & {history: ThreadHistoryAdapter}}
 */
export function gatewayModel(gateway, { tools: _, id = "thread", storage, ...fields } = {}) {
  const client = clientOf(gateway);
  /** @type {ReturnType<typeof createKeeper<Kept>>} */
  const tickets = createKeeper(storage);

  /**
   * Yield an answer as the runtime takes it; of one that is resumed, from its beginning.
   * @param {ChatModelRunOptions} options @param {Kept} [kept]
   * @returns {AsyncGenerator<ChatModelRunResult, void>}
   */
  async function* answer({ messages, abortSignal: signal, context, unstable_getMessage }, kept) {
    // The answer itself is there when it goes on with a result that the page has added.
    const message = unstable_getMessage();
    const before = kept?.before ?? /** @type {readonly AnswerPart[]} */ (message.content);
    const known = /** @type {ThreadMessage} */ ({ ...message, content: before });
    const all = conversation([...messages, known], context.system);
    const asked = { ...fields, ...settingsOf(context), ...all, tools: toolsOf(context), signal };
    const run = runTools(kept ? resuming(client, kept.ticket) : client, asked);
    /** @type {readonly AnswerPart[]} */
    let content = kept ? before : [];
    let lost = false;
    try {
      for await (const event of run.events()) {
        if (event.type === "progress" && "started" in event.progress && run.ticket && fields.keep_on_close) {
          const parentId = messages.at(-1)?.id ?? null;
          own(run.ticket.id);
          tickets.keep(id, { ticket: run.ticket, parentId, before: kept ? content : [...before, ...content] });
        }
        const more = changed(content, event);
        if (more !== content) yield { content: more };
        content = more;
      }
      const { finishReason, usage, timing, model } = await run.result;
      const steps = [{ usage: { inputTokens: usage.prompt_tokens, outputTokens: usage.completion_tokens } }];
      yield { content, status: STATUSES[finishReason], metadata: { steps, custom: { usage, timing, model } } };
    } catch (caught) {
      const error = /** @type {GatewayError} */ (caught);
      lost = error.code === "connection_lost";
      if (error.name === "AbortError") throw error;
      // Thrown, it would be an unhandled rejection of the runtime too.
      yield { content, status: { type: "incomplete", reason: "error", error: error.message } };
    } finally {
      if (!lost && run.ticket) disown(run.ticket.id);
      // A later answer may have been begun.
      if (!lost && tickets.kept(id)?.ticket.id === run.ticket?.id) tickets.forget(id);
    }
  }

  return {
    run: (options) => answer(options),
    history: {
      ...createThread(`${id}:messages`, storage, () => tickets.kept(id)),
      resume: (options) => answer(options, tickets.kept(id)),
    },
  };
}

/**
 * Return a client whose first answer is one that is resumed.
 * @param {Client} client @param {Ticket} ticket
 * @returns {Pick<Client, "generate">}
 */
function resuming(client, ticket) {
  let first = true;
  return {
    generate(request) {
      if (!first) return client.generate(request);
      first = false;
      return client.resume(ticket, request);
    },
  };
}

/**
 * Return what keeps the messages of a thread.
 * @param {string} id @param {Store | undefined} storage
 * @param {() => Kept | undefined} resumable the answer that is to be resumed, if there is one
 * @returns {ThreadHistoryAdapter}
 */
function createThread(id, storage, resumable) {
  /** @type {ReturnType<typeof createKeeper<Item[]>>} */
  const keeper = createKeeper(storage);
  const items = () => keeper.kept(id) ?? [];

  /** @param {Item} item */
  async function put(item) {
    const before = items();
    const index = before.findIndex(({ message }) => message.id === item.message.id);
    keeper.keep(id, index < 0 ? [...before, item] : before.with(index, item));
  }

  return {
    async load() {
      const messages = items().map(({ message, ...item }) => {
        const createdAt = new Date(message.createdAt); // in JSON it is a text
        return { ...item, message: { ...message, createdAt } };
      });
      const kept = resumable();
      return { messages, ...(kept && (await own(kept.ticket.id)) ? { headId: kept.parentId, unstable_resume: true } : {}) };
    },
    append: put,
    update: put,
    async delete(gone) {
      const ids = gone.map(({ message }) => message.id);
      keeper.keep(id, items().filter(({ message }) => !ids.includes(message.id)));
    },
  };
}

/** Return an answer's content after an event. @param {readonly AnswerPart[]} content @param {ToolRunEvent} event */
function changed(content, event) {
  switch (event.type) {
    case "text":
    case "reasoning": {
      if (event.choice) return content;
      const last = content.at(-1);
      const { type, text } = event;
      return last?.type === type ? [...content.slice(0, -1), { type, text: last.text + text }] : [...content, { type, text }];
    }
    case "call":
      return withCall(content, event.call, {});
    case "result":
      return withCall(content, event.call, { result: parsed(event.content) ?? event.content });
    default:
      return content;
  }
}

/** @param {readonly AnswerPart[]} content @param {ToolCall} call @param {{result?: unknown}} more @returns {AnswerPart[]} */
function withCall(content, call, more) {
  const { id: toolCallId, name: toolName, arguments: argsText } = call;
  const failed = call.error ? { result: { error: call.error }, isError: true } : {};
  const args = parsed(argsText) ?? {}; // while it is written, only its text is there
  /** @type {AnswerPart} */
  const part = { type: "tool-call", toolCallId, toolName, args, argsText, ...failed, ...more };
  const index = content.findIndex((one) => one.type === "tool-call" && one.toolCallId === toolCallId);
  return index < 0 ? [...content, part] : content.with(index, part);
}

/** Return the tools of the page, with their functions. @param {ModelContext} context @returns {Tool[]} */
function toolsOf({ tools = {} }) {
  return Object.entries(tools)
    .filter(([, { disabled, type }]) => !disabled && type !== "backend")
    .map(([name, { description = "", parameters, execute }]) => {
      /** @type {Tool} */
      const tool = { name, description, parameters: schemaOf(parameters) };
      if (!execute) return tool;
      /** @type {Tool["run"]} */
      const run = (args, { call, signal: abortSignal }) =>
        execute(args, /** @type {any} */ ({ toolCallId: call.id, abortSignal, human: neverAnswered }));
      return { ...tool, run };
    });
}

const neverAnswered = () => Promise.reject(new Error("a function can't ask the user here"));

/** Return a schema as JSON Schema; one of Zod and the like can say it itself. @param {any} schema @returns {object} */
function schemaOf(schema) {
  const itself = schema?.["~standard"]?.jsonSchema?.input({ target: "draft-07" });
  return itself ?? schema?.toJSONSchema?.() ?? schema?.toJSON?.() ?? schema ?? { type: "object" };
}

/** Return the fields that the page's model context sets. @param {ModelContext} context @returns {Fields} */
function settingsOf({ callSettings = {}, config = {} }) {
  const { maxTokens, temperature, topP, presencePenalty, frequencyPenalty, seed } = callSettings;
  const fields = {
    ...{ max_tokens: maxTokens, temperature, top_p: topP, presence_penalty: presencePenalty },
    ...{ frequency_penalty: frequencyPenalty, seed, model: config.modelName },
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/**
 * Return messages of a thread as those of the gateway, and the files beside them.
 * @param {readonly ThreadMessage[]} messages
 * @param {string} [system]
 * @returns {{messages: Message[], files?: File[]}}
 */
export function conversation(messages, system) {
  /** @type {File[]} */
  const files = [];
  /** @type {Message[]} */
  const turns = system ? [{ role: "system", content: system }] : [];
  for (const { role, content, attachments = [] } of messages) {
    if (role === "assistant") turns.push(...answerTurns(stepsOf(content)));
    else if (role === "system") turns.push({ role, content: content.map(textOf).join("") });
    else {
      const parts = [...content, ...attachments.flatMap((one) => one.content)];
      const turn = userTurn(parts.flatMap(shown));
      turns.push(turn.message);
      files.push(...turn.files);
    }
  }
  return files.length ? { messages: turns, files } : { messages: turns };
}

/** @param {ThreadPart} part @returns {Shown[]} */
function shown(part) {
  if (part.type === "text") return [{ text: part.text }];
  if (part.type === "image") return [{ url: part.image, type: "image", name: part.filename }];
  return part.type === "file" ? [{ url: part.data, type: part.mimeType, name: part.filename }] : [];
}

/** @param {ThreadPart} part @returns {string} */
const textOf = (part) => (part.type === "text" ? part.text : "");

/** Return an answer's steps: what follows a call belongs to the next one. @param {readonly ThreadPart[]} content */
function stepsOf(content) {
  const newStep = () => ({ text: "", reasoning: "", calls: /** @type {ReturnType<typeof callOf>[]} */ ([]) });
  const steps = [newStep()];
  for (const part of content) {
    let step = /** @type {ReturnType<typeof newStep>} */ (steps.at(-1));
    if (step.calls.length && part.type !== "tool-call") steps.push((step = newStep()));
    if (part.type === "text") step.text += part.text;
    else if (part.type === "reasoning") step.reasoning += part.text;
    else if (part.type === "tool-call" && part.result !== undefined) step.calls.push(callOf(part));
  }
  return steps;
}

/** @param {CallPart} part */
const callOf = ({ toolCallId, toolName, args, result }) => ({ id: toolCallId, name: toolName, input: args, result });
