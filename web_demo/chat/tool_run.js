// @ts-check
/**
 * An answer with tools that another page can go on with: what is over of it is told as messages, and what is being
 * generated has a ticket. A page that knows both goes on where the page before it was left.
 */

import { assistantTurn, toolTurn } from "../tool_loop.js";

/**
 * @typedef {import("../client.js").Message} Message
 * @typedef {import("../tool_loop.js").Tool} Tool
 * @typedef {import("../client.js").ToolCall} ToolCall
 * @typedef {import("../tool_loop.js").ToolRunEvent} ToolRunEvent
 * @typedef {{
 *   options: import("../client.js").GenerateOptions, messages: Message[], tools: Tool[],
 *   rounds?: Message[], ticket?: import("../client.js").Ticket | null,
 *   onrounds?: (rounds: Message[]) => void, onresult?: (call: ToolCall, content: string) => void,
 * }} ToolRequest `rounds` are the messages that an earlier page has added, `ticket` is of what it was receiving;
 *   `onrounds` is called with all messages that are added, whenever there are more of them
 * @typedef {import("../tool_loop.js").ToolResult & {written: number}} Ended `usage` is of the last round, `written` are the
 *   tokens of all
 */

const MAX_ROUNDS = 8; // the most answers in a row that may call tools
const NOTHING = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, cached_tokens: 0, reasoning_tokens: 0 };
const AT_ONCE = { queue: 0, prefill: 0, first_token: 0, total: 0, tokens_per_second: 0 };

/** @param {import("../client.js").Client} client @param {ToolRequest} request */
export function createToolRun(client, { options, messages, tools, rounds = [], ticket = null, onrounds, onresult }) {
  const { tool_choice, ...others } = options;
  const functions = new Map(tools.map((tool) => [tool.name, tool.run]));
  const definitions = tools.map(({ run, ...definition }) => definition);
  const controller = new AbortController();
  const added = [...rounds];
  /** @type {import("../client.js").Run | null} */
  let current = null;
  /** What the round that is over has said. @type {import("../client.js").Result | null} */
  let last = null;
  let written = 0; // tokens, in all rounds of this page
  /** @type {PromiseWithResolvers<Ended>} */
  const result = Promise.withResolvers();
  result.promise.catch(() => {});

  /** Generate the next answer, or go on with the one that another page was receiving. */
  function generate() {
    if (ticket) return client.resume(ticket);
    // If each round forced a call, the model could never answer in text.
    const choice = added.length && tool_choice !== "none" ? {} : { tool_choice };
    return client.generate({ ...others, ...choice, messages: [...messages, ...added], tools: definitions, keep_on_close: true });
  }

  /** @param {Message[]} more */
  function add(...more) {
    added.push(...more);
    onrounds?.([...added]);
  }

  /** Run functions, and tell what they return. @param {ToolCall[]} calls */
  async function answer(calls) {
    const { signal } = controller;
    add(...(await Promise.all(calls.map((call) => callTool(call, signal)))));
  }

  /** @param {ToolCall} call @param {AbortSignal} signal */
  async function callTool(call, signal) {
    const content = await returned(functions, call, signal);
    onresult?.(call, content);
    return toolTurn(call, content);
  }

  /** @returns {AsyncGenerator<ToolRunEvent, Ended>} */
  async function* drive() {
    const left = unanswered(added);
    if (left.length) await answer(left);
    for (let round = 1 + added.filter(({ role }) => role === "assistant").length; ; round += 1) {
      if (controller.signal.aborted) return { ...(last ?? unknown(added)), toolCalls: [], finishReason: "cancelled", messages: added, written };
      current = generate();
      ticket = null;
      for await (const event of current.events()) if (event.type !== "done") yield event;
      const said = (last = await current.result);
      written += said.usage.completion_tokens;
      const calls = said.toolCalls;
      // Calls of unknown tools get an error; there is nobody to answer where there are no tools.
      const goesOn = calls.length > 0 && tools.length > 0 && round < MAX_ROUNDS && !controller.signal.aborted;
      add(assistantTurn(said));
      if (!goesOn) return { ...said, messages: added, written };
      await answer(calls);
    }
  }

  async function* events() {
    try {
      const last = yield* drive();
      result.resolve(last);
      yield /** @type {ToolRunEvent} */ ({ type: "done", result: last });
    } catch (error) {
      result.reject(error);
      throw error;
    }
  }

  return {
    /** All that happens, in order; it may be read once, and the run goes on only while it is read. */
    events,
    /** A promise of the last answer, with the added `messages`. */
    result: result.promise,
    /** That of what is being generated. */
    get ticket() {
      return current?.ticket ?? null;
    },
    cancel() {
      controller.abort();
      current?.cancel();
    },
  };
}

/** Return the calls that nobody has answered yet. @param {Message[]} messages @returns {ToolCall[]} */
export function unanswered(messages) {
  const last = messages.findLast(({ role }) => role === "assistant");
  if (!last || !("tool_calls" in last)) return [];
  const answered = new Set(messages.slice(messages.indexOf(last)).map((one) => ("tool_call_id" in one ? one.tool_call_id : "")));
  return (last.tool_calls ?? []).map(({ id, function: called }, index) => ({
    index, id, name: called.name, complete: true,
    arguments: typeof called.arguments === "string" ? called.arguments : JSON.stringify(called.arguments),
  })).filter(({ id }) => !answered.has(id));
}

/** Return what a function returns, or its error, as the model reads it. @param {Map<string, Tool["run"]>} functions @param {ToolCall} call @param {AbortSignal} signal */
async function returned(functions, call, signal) {
  const run = functions.get(call.name);
  try {
    if (!run) throw `there is no tool ${call.name}, only ${[...functions.keys()].join(", ")}`;
    const value = await Promise.race([run(JSON.parse(call.arguments), { call, signal }), aborted(signal)]);
    return typeof value === "string" ? value : spaced(value);
  } catch (error) {
    return spaced({ error: String(error) });
  }
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
function aborted(signal) {
  return new Promise((_, reject) => {
    if (signal.aborted) reject("stopped");
    signal.addEventListener("abort", () => reject("stopped"), { once: true });
  });
}

/**
 * Return JSON with a space after each comma and colon, as in most training data; small models make mistakes
 * without it. @param {unknown} value
 */
function spaced(value) {
  const lines = JSON.stringify(value, null, 1) ?? "null";
  return lines.replace(/([[{])?\n *([\]}])?/g, (_, open = "", close = "") => open + close || " ");
}

/** Return what is said of a run of which an earlier page has received all that came. @param {Message[]} messages @returns {import("../client.js").Result} */
function unknown(messages) {
  const last = messages.findLast(({ role }) => role === "assistant");
  const text = typeof last?.content === "string" ? last.content : "";
  return { text, reasoning: "", model: "", toolCalls: [], brokenCalls: [], finishReason: "cancelled", usage: NOTHING, timing: AT_ONCE };
}
