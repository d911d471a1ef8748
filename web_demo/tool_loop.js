/**
 * Runs the functions that the model calls, and goes on until the model has answered.
 *
 *     const get_weather = {name: "get_weather", description, parameters, run: ({city}) => weatherOf(city)};
 *     const run = runTools(connect(), {messages, tools: [get_weather]});
 *     for await (const chunk of run) show(chunk.text);
 *     messages.push(...(await run.result).messages);
 */

import { createOutput } from "./client.js";

/**
 * @import { Client, GenerateOptions, Message, Result, Run, RunEvent, ToolCall } from "./client.js"
 * @typedef {{
 *   name: string, description?: string, parameters?: object,
 *   run?: (args: any, context: {call: ToolCall, signal: AbortSignal}) => unknown,
 * }} Tool `parameters` is a JSON Schema; `run` gets the parsed arguments
 * @typedef {Omit<GenerateOptions, "tools" | "prompt"> & {
 *   messages: Message[], tools: Tool[], maxRounds?: number,
 *   onresult?: (call: ToolCall, content: string) => void,
 * }} ToolOptions
 * @typedef {Exclude<RunEvent, {type: "done"}> | {type: "result", call: ToolCall, content: string}
 *   | {type: "done", result: ToolResult}} ToolRunEvent
 * @typedef {Result & {messages: Message[]}} ToolResult `messages` are the turns that were added
 * @typedef {ReturnType<typeof runTools>} ToolRun
 */

/** The most answers in a row that may call tools. */
const MAX_ROUNDS = 8;

/**
 * Generate, run the functions that the model calls, send it their results, and go on until it has answered.
 *
 * Calls of tools without a `run` are left to the caller: they are in the result's `toolCalls`. If a function
 * throws, or the model calls a tool that does not exist, the model gets the error as the result. A `tool_choice`
 * that forces a call applies to the first answer only.
 *
 * @param {Pick<Client, "generate">} client
 * @param {ToolOptions} request
 */
export function runTools(client, request) {
  const { messages, tools, maxRounds = MAX_ROUNDS, onresult, signal, tool_choice, ...options } = request;
  const functions = new Map(tools.map((tool) => [tool.name, tool.run]));
  const definitions = tools.map(({ run, ...definition }) => definition);
  const controller = new AbortController();
  const stop = signal ? AbortSignal.any([controller.signal, signal]) : controller.signal;
  /** The messages added so far. @type {Message[]} */
  const turns = [];
  let text = "";
  /** The run of the answer which is being made. @type {Run} */
  let current;
  /** @type {ReturnType<typeof createOutput<ToolRunEvent, ToolResult>>} */
  const output = createOutput(
    () => {
      controller.abort();
      current.cancel();
    },
    (number) => {
      used = number;
      wake();
    },
  );
  let added = 0; // events of answers
  let used = 0; // the number of the newest that the loop has processed
  let wake = () => {};

  /** Pass an answer on as fast as the loop takes it, so that its window holds the model back. @param {Run} run */
  async function pass(run) {
    let over = false;
    const end = () => {
      over = true;
      wake();
    };
    run.result.then(end, end);
    for await (const event of run.events()) {
      if (event.type === "text" && !event.choice) text += event.text;
      if (event.type !== "done") output.add(event, (added += 1));
      while (used < added && !over) await new Promise((go) => (wake = () => go(undefined)));
    }
  }

  /** @returns {Promise<ToolResult>} */
  async function drive() {
    for (let round = 1; ; round += 1) {
      const asked = [...messages, ...turns];
      // If each round forced a call, the model could never answer in text.
      const choice = round === 1 || tool_choice === "none" ? tool_choice : undefined;
      current = client.generate({ ...options, signal, messages: asked, tools: definitions, tool_choice: choice });
      await pass(current);
      const answer = await current.result;
      const calls = answer.toolCalls;
      turns.push(assistantTurn(answer));
      // Calls of tools without a function are left to the caller; calls of unknown tools get an error.
      const ours = calls.every(({ name }) => functions.get(name) || (tools.length && !functions.has(name)));
      const last = !calls.length || !ours || round === maxRounds || controller.signal.aborted;
      if (!last) turns.push(...(await Promise.all(calls.map(callTool))));
      if (controller.signal.aborted) answer.finishReason = "cancelled";
      if (last || controller.signal.aborted) return { ...answer, messages: turns };
    }
  }

  /** @param {ToolCall} call */
  async function callTool(call) {
    const run = functions.get(call.name);
    let content;
    try {
      if (!run) throw `there is no tool ${call.name}, only ${[...functions.keys()].join(", ")}`;
      const value = await orStopped(stop, async () => run(JSON.parse(call.arguments), { call, signal: stop }));
      content = typeof value === "string" ? value : spacedJson(value);
    } catch (error) {
      content = spacedJson({ error: String(error) });
    }
    output.add({ type: "result", call, content });
    onresult?.(call, content);
    return toolTurn(call, content);
  }

  drive().then(output.resolve, output.reject);
  return Object.assign(
    {
      /** The text of all answers so far. */
      get text() {
        return text;
      },
      /** That of the answer which is being made, with which `resume` goes on with it alone. */
      get ticket() {
        return current.ticket;
      },
    },
    output.views,
  );
}

/** Return an answer as a message of the conversation. @param {Result} answer @returns {Message} */
export function assistantTurn(answer) {
  const calls = answer.toolCalls.map((call) => ({
    type: /** @type {const} */ ("function"),
    id: call.id,
    function: { name: call.name, arguments: call.arguments },
  }));
  const turn = { role: /** @type {const} */ ("assistant"), content: answer.text };
  if (!calls.length) return turn;
  // Models that think between calls need their earlier thinking.
  const thoughts = answer.reasoning ? { reasoning_content: answer.reasoning } : {};
  return { ...turn, ...thoughts, tool_calls: calls };
}

/** Return a tool's result as a message. @param {ToolCall} call @param {string} content @returns {Message} */
export function toolTurn(call, content) {
  return { role: "tool", tool_call_id: call.id, name: call.name, content };
}

/**
 * Return JSON with a space after each comma and colon, as in most training data; small models make
 * mistakes without it. @param {unknown} value
 */
function spacedJson(value) {
  const lines = JSON.stringify(value, null, 1) ?? "null"; // in a string, a line break is written as \n
  return lines.replace(/,\n */g, ", ").replace(/\n */g, "");
}

/**
 * Return a function's result; reject when `stop` is aborted, without waiting for the function to end.
 * @param {AbortSignal} stop @param {() => Promise<unknown>} run
 */
function orStopped(stop, run) {
  return new Promise((resolve, reject) => {
    const leave = () => setTimeout(reject, 0, "stopped");
    if (stop.aborted) return leave();
    stop.addEventListener("abort", leave, { once: true });
    run().then(resolve, reject).finally(() => stop.removeEventListener("abort", leave));
  });
}
