/**
 * A client for mlx-gateway: no dependencies, no build step.
 *
 *     const run = connect().generate({messages: [{role: "user", content: "Hello"}]});
 *     for await (const chunk of run) show(chunk.text);
 *     const result = await run.result;
 *
 * `runTools` of tool_loop.js also runs the functions that the model calls.
 *
 * Leaving the loop, `run.cancel()` and an AbortSignal each stop the model at once. After a lost
 * connection the client resumes its runs, and no chunk is lost or repeated. A run that can't be resumed
 * (because the gateway was restarted, had not begun it, or was unreachable for a minute) fails with
 * ConnectionLostError, which has the text so far. No prompt is sent a second time.
 */

/**
 * @typedef {{role: "system" | "user", content: string | Part[]}
 *   | {role: "assistant", content: string | Part[], tool_calls?: CallOfMessage[], reasoning_content?: string}
 *   | {role: "tool", content: string | Part[], tool_call_id?: string, name?: string}} Message
 * @typedef {{id: string, type: "function", function: {name: string, arguments: string | object}}} CallOfMessage
 * @typedef {{type: "text", text: string} | {type: "image", data: string}
 *   | {type: "image_url", image_url: {url: string}}} Part of a message; `data` is base64 text
 * @typedef {{
 *   messages?: Message[], prompt?: string, system_prompt?: string, model?: string,
 *   temperature?: number, top_p?: number, top_k?: number, min_p?: number, max_tokens?: number,
 *   seed?: number, stop?: string | string[], repetition_penalty?: number, tools?: ToolDefinition[],
 *   logprobs?: boolean, top_logprobs?: number, n?: number,
 *   tool_choice?: "auto" | "none" | "required" | {type: "function", function: {name: string}},
 *   files?: {name: string, mime?: string, data: string}[], enable_thinking?: boolean,
 *   raw?: boolean, continue_final_message?: boolean, max_reasoning_tokens?: number,
 *   chat_template_kwargs?: object, response_format?: ResponseFormat, logit_bias?: Record<string, number>,
 *   presence_penalty?: number, frequency_penalty?: number,
 *   id?: string, resumable?: boolean, keep_on_close?: boolean, stream?: boolean, window?: number,
 *   signal?: AbortSignal, onprogress?: (progress: Progress) => void,
 *   oncall?: (call: ToolCall) => void,
 * }} GenerateOptions With `keep_on_close`, the run goes on for a minute when its page is left.
 *   `window` is how many of its frames may wait for its loop, 64 by default, before the model waits too
 * @typedef {{name: string, description?: string, parameters?: object}
 *   | {type: "function", function: {name: string, description?: string, parameters?: object}}} ToolDefinition
 * @typedef {{type: "text" | "json_object"} | {type: "json_schema", schema: object}
 *   | {type: "json_schema", json_schema: {schema: object, name?: string, strict?: boolean}}
 *   | {type: "regex", regex: string} | {type: "lark", grammar: string}
 *   | {type: "choice", choices: string[]}} ResponseFormat
 * @typedef {{id: string, ticket: string, window?: number}} Ticket What `resume` needs, as plain data
 * @typedef {Pick<GenerateOptions, "signal" | "onprogress" | "oncall"> & {after?: number}} ResumeOptions
 *   `after` is the number of the last frame that is not wanted again; by default all are
 * @typedef {ResumeOptions & {window?: number}} FollowOptions
 * @typedef {{
 *   type: "text" | "reasoning", text: string, channel: "answer" | "reasoning",
 *   logprobs?: TokenLogprob[], choice?: number, at?: number,
 * }} Chunk `choice` is the index of its answer among `n`; absent for the first one. `at` is when it came, where a
 *   WebSocket of the caller's tells that
 * @typedef {Chunk | {type: "progress", progress: Progress}
 *   | {type: "call", call: ToolCall, delta: string} | {type: "resumed"} | {type: "done", result: Result}
 * } RunEvent `delta` is what was added to the arguments of the call
 * @typedef {{
 *   token: string, logprob: number, bytes: number[] | null, top_logprobs?: TokenLogprob[],
 * }} TokenLogprob `bytes` is null for a part of a character
 * @typedef {{queued: number} | {done: number, total: number} | {started: Started}
 *   | {loading: string, done: number, total: number, warmingUp: boolean}} Progress `done` and `total` are
 *   tokens of the prompt, or with `loading` bytes of the model's weights, while `warmingUp` forward passes
 * @typedef {{id: string, seq: number, model: string, prompt_tokens: number, cached_tokens: number,
 *   ticket?: string}} Started
 * @typedef {{
 *   index: number, id: string, name: string, arguments: string, complete: boolean,
 *   error?: "cut_off" | "malformed", text?: string,
 * }} ToolCall `arguments` is JSON text, of which more may follow until the call is `complete`; a
 *   call with an `error` can't be answered, and its `text` is what the model wrote
 * @typedef {{
 *   text: string, reasoning: string, model: string,
 *   toolCalls: ToolCall[], brokenCalls: ToolCall[], choices?: {text: string, finishReason: string}[],
 *   finishReason: "stop" | "length" | "tool_calls" | "cancelled",
 *   usage: Usage, timing: Timing,
 * }} Result
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number, cached_tokens: number,
 *   reasoning_tokens: number}} Usage
 * @typedef {{queue: number, prefill: number, first_token: number, total: number, tokens_per_second: number}
 * } Timing In milliseconds
 * @typedef {"connecting" | "open" | "waiting" | "closed"} ConnectionState
 * @typedef {{
 *   protocol: string, server: string, epoch: string, connection: string, models: string[], node?: string,
 *   limits: {max_frame_bytes: number, max_generations: number, resume_ttl: number,
 *     max_prompt_tokens?: number, max_answer_tokens?: number, max_batch?: number},
 * }} Ready What the gateway says first
 * @typedef {keyof typeof RETRYABLE | "connection_lost"} ErrorCode
 * @typedef {ReturnType<typeof connect>} Client
 * @typedef {ReturnType<Client["generate"]>} Run
 * @typedef {{
 *   token?: string | (() => string | Promise<string>),
 *   WebSocket?: new (url: string, protocols: string[]) => any,
 *   lazy?: boolean, giveUpMs?: number, quietMs?: number, onframe?: (frame: object, way: "in" | "out") => void,
 *   onstate?: (state: ConnectionState, closeCode?: number, reason?: string) => void,
 * }} ConnectOptions `reason` is what the gateway said when it closed the connection. With `lazy`,
 *   the client connects for its first run. `giveUpMs` is for how long runs wait for a lost gateway, `quietMs` for how
 *   long for one that says nothing until it is pinged
 */

export const PROTOCOL = "mlx-gateway.v1.json";

/** Whether the same request may succeed later, by error code. */
export const RETRYABLE = Object.freeze({
  invalid_frame: false,
  unauthorized: false,
  forbidden: false,
  duplicate_id: false,
  invalid_request: false,
  unknown_model: false,
  context_too_long: false,
  unsupported: false,
  overloaded: true,
  rate_limited: true,
  slow_client: true,
  not_resumable: false,
  model_error: false,
  shutting_down: true,
  internal: false,
});

/** Errors by close codes after which a client would be refused again. @type {Map<number, ErrorCode>} */
const FATAL_CLOSES = new Map([
  [4400, "invalid_frame"],
  [4401, "unauthorized"],
  [4403, "forbidden"],
]);
const QUIET_MS = 15_000; // after two of these without a frame comes a ping; after four the connection is lost
const SLOW_BYTES = 32; // that a slow line takes in a millisecond
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 10_000;
const GIVE_UP_MS = 60_000; // for which gateways keep a run by default
const MAX_WAITING = 64; // requests without a connection
/** Of a run that was cancelled without a connection. */
const NO_USAGE = {
  prompt_tokens: 0,
  completion_tokens: 0,
  total_tokens: 0,
  cached_tokens: 0,
  reasoning_tokens: 0,
};
const NO_TIMING = { queue: 0, prefill: 0, first_token: 0, total: 0, tokens_per_second: 0 };
const WINDOW = 64;

/** The gateway refused a request or ended a generation. */
export class GatewayError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {{retryable?: boolean, retryAfter?: number, text?: string}} [details]
   */
  constructor(code, message, { retryable = false, retryAfter, text = "" } = {}) {
    super(message);
    this.name = "GatewayError";
    this.code = code;
    this.retryable = retryable;
    /** Seconds to wait before trying again; undefined if the gateway gave no time. */
    this.retryAfter = retryAfter;
    /** The answer's text so far. */
    this.text = text;
  }
}

/** The connection ended before the generation did. */
export class ConnectionLostError extends GatewayError {
  /** @param {string} text @param {string} [message] */
  constructor(text, message = "the connection to the gateway was lost") {
    super("connection_lost", message, { retryable: true, text });
    this.name = "ConnectionLostError";
  }
}

/**
 * Return a client, whose `ready` settles when it is connected. One that was closed connects again for its
 * next run. Throws TypeError for a wrong URL, and where there is no WebSocket.
 *
 * @param {string} [url] ws://, wss://, http://, https://, or nothing for the page's own origin
 * @param {ConnectOptions} [options]
 */
export function connect(url, options = {}) {
  const { lazy = false, giveUpMs = GIVE_UP_MS, quietMs = QUIET_MS } = options;
  /** @type {Map<string, ReturnType<typeof createRun>>} */
  const runs = new Map();
  /** The requests that wait for a connection, by id. @type {Map<string, string>} */
  const waiting = new Map();
  /** Cancelled runs whose end has not come from the gateway. @type {Map<string, ReturnType<typeof createRun>>} */
  const leaving = new Map();
  /** Clients of other gateways. @type {Set<Client>} */
  const beside = new Set();
  let epoch = "";
  /** The gateway's name among several. @type {string | undefined} */
  let node;
  let maxFrameBytes = Infinity; // until the gateway has sent its limits
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {ConnectionState} */
  let state = lazy ? "closed" : "connecting";
  let opening = 0; // the number of the newest attempt; an older one does nothing more
  let attempts = 0;
  let lastId = 0;
  const ownName = Math.random().toString(36).slice(2, 10); // so that another page can resume its runs
  let closedByCaller = false;
  /** Why the gateway would refuse the client again. @type {((text: string) => GatewayError) | null} */
  let refusal = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let givingUp;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let looking;
  let again = () => {}; // makes the next attempt
  let quiet = 0; // looks since a frame came
  let takenBy = 0; // when a slow line has taken what was sent
  const events = new EventTarget();
  /** @type {ReturnType<typeof deferred<Ready>>} */
  let ready = deferred();

  /**
   * @param {ConnectionState} next
   * @param {number} [closeCode]
   * @param {string} [reason]
   */
  function become(next, closeCode, reason) {
    if (state === next) return;
    state = next;
    options.onstate?.(state, closeCode, reason);
    events.dispatchEvent(new Event("state"));
  }

  /** Connect, unless there is a connection or one is being made. */
  function open() {
    if (opening && state !== "closed") return;
    const Socket = options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new TypeError("there is no WebSocket here: pass one, as `connect(url, {WebSocket})`");
    const target = streamUrl(url);
    if (opening) ready = deferred();
    attempts = 0;
    closedByCaller = false;
    refusal = null;
    again = () => attempt(Socket, target);
    again();
  }

  /** @param {new (url: string, protocols: string[]) => any} Socket @param {string} target */
  async function attempt(Socket, target) {
    opening += 1;
    const number = opening;
    timer = undefined;
    become("connecting");
    const protocols = [PROTOCOL];
    if (options.token !== undefined) {
      try {
        const token = typeof options.token === "function" ? await options.token() : options.token;
        protocols.push(`mlx-gateway.bearer.${base64url(token)}`);
      } catch (error) {
        // The source of tokens may be unreachable.
        console.error(error);
        if (number === opening) retryLater();
        return;
      }
    }
    if (number !== opening) return;
    const current = new Socket(addressOf(target), protocols);
    socket = current;
    // After a `hello` without a token, a gateway that requires one refuses at once.
    if (options.token === undefined) current.onopen = () => current.send('{"type":"hello"}');
    current.onmessage = (/** @type {{data: string, at?: number}} */ { data, at }) => receive(JSON.parse(data), at);
    current.onclose = (/** @type {{code: number, reason: string}} */ event) =>
      lost(current, event.code, event.reason);
    current.onerror = () => {}; // `onclose` follows
  }

  /** Return the address of the gateway that the runs' tickets name, if any. @param {string} target */
  function addressOf(target) {
    const [run] = [...runs.values(), ...leaving.values()].filter(({ hasTicket }) => hasTicket);
    const name = nodeOf(run?.handle.ticket?.ticket ?? "");
    if (!name) return target;
    const full = new URL(target);
    full.searchParams.set("node", name);
    return full.href;
  }

  /** @param {string} text */
  function ending(text) {
    if (refusal) return refusal(text);
    return closedByCaller ? new DOMException("the client was closed", "AbortError") : new ConnectionLostError(text);
  }

  /** @param {any} frame @param {number} [at] */
  function receive(frame, at) {
    options.onframe?.(frame, "in");
    quiet = 0;
    if (frame.type === "ready") {
      look();
      attempts = 0;
      stopGivingUp();
      become("open");
      maxFrameBytes = frame.limits?.max_frame_bytes ?? Infinity;
      ready.resolve(frame);
      resumeRuns(!epoch || frame.epoch === epoch);
      ({ epoch, node } = frame);
      waiting.forEach(sendLate);
      waiting.clear();
      return;
    }
    const run = leaving.get(frame.id) ?? runs.get(frame.id);
    if (!run) return; // it has ended, or the frame is of a later version of the protocol
    if (run.forgotten(frame)) return resumeAfter(run);
    if (leaving.has(frame.id)) passEnd(frame);
    run.receive(frame, at);
  }

  /** Resume a run after its newest frame. @param {ReturnType<typeof createRun>} run */
  function resumeAfter(run) {
    const { id } = run.handle;
    send(run.resume(run.last));
    if (leaving.has(id)) send({ type: "cancel", id });
  }

  /** Acknowledge a frame of a cancelled run, whose `done` must pass its window. @param {any} frame */
  function passEnd({ type, id, seq }) {
    if (type === "done" || type === "error") leaving.delete(id);
    else if (seq !== undefined) send({ type: "ack", id, seq });
  }

  /** Resume all runs, or fail them. @param {boolean} same whether the gateway was not restarted */
  function resumeRuns(same) {
    for (const run of [...runs.values()]) {
      if (!run.hasTicket) continue;
      if (!same) run.fail((text) => new ConnectionLostError(text));
      else if (!leaving.has(run.handle.id)) send(run.resume());
    }
    if (same) leaving.forEach(resumeAfter);
    else leaving.clear();
  }

  /** Fail some of the runs. @param {(run: ReturnType<typeof createRun>) => boolean} which */
  function failRuns(which) {
    for (const run of [...runs.values()]) {
      if (which(run)) run.fail(ending);
    }
  }

  /** Say what ended the connection for good. @param {number} code @param {string} reason */
  function refused(code, reason) {
    const error = FATAL_CLOSES.get(code) ?? "internal";
    console.error(`mlx-gateway has closed the connection (${code}): ${reason}`);
    refusal = (text) => new GatewayError(error, reason || `closed with ${code}`, { text });
  }

  /**
   * @param {WebSocket | null} which
   * @param {number} code
   * @param {string} [reason]
   */
  function lost(which, code, reason = "") {
    if (which !== socket) return;
    socket = null;
    clearTimeout(looking);
    if (FATAL_CLOSES.has(code)) refused(code, reason);
    // Unsent frames keep waiting, and runs with a ticket are resumed later.
    const over = closedByCaller || FATAL_CLOSES.has(code);
    failRuns((run) => over || !(waiting.has(run.handle.id) || run.hasTicket));
    for (const [id, run] of leaving) if (over || !run.hasTicket) leaving.delete(id);
    if (over) {
      waiting.clear();
      become("closed", code, reason);
      ready.reject(ending(""));
      return;
    }
    giveUpLater();
    retryLater();
  }

  /** Fail the runs that wait for a connection by then. */
  function giveUpLater() {
    givingUp ??= setTimeout(() => {
      givingUp = undefined;
      leaving.clear();
      failRuns((run) => run.hasTicket);
    }, giveUpMs);
  }

  /** Ping a gateway that says nothing while runs wait; without a pong the connection is gone. */
  function look() {
    quiet = runs.size && Date.now() > takenBy ? quiet + 1 : 0;
    const open = /** @type {WebSocket} */ (socket);
    if (quiet > 1) put(open, '{"type":"ping"}');
    // Once is not enough: the timer of a page that was asleep comes before the pong that waits.
    if (quiet < 4) looking = setTimeout(look, quietMs);
    else {
      lost(open, 1006);
      open.close();
    }
  }

  function stopGivingUp() {
    clearTimeout(givingUp);
    givingUp = undefined;
  }

  function retryLater() {
    ready.reject(new ConnectionLostError(""));
    ready = deferred();
    become("waiting");
    retry();
  }

  function retry() {
    // A hidden page reconnects when it is shown again.
    if (globalThis.document?.hidden) {
      document.addEventListener("visibilitychange", retry, { once: true });
      return;
    }
    const most = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempts);
    attempts += 1;
    timer = setTimeout(again, Math.random() * most); // full jitter, so that many clients don't reconnect at once
  }

  /**
   * Send a text. Throws GatewayError for one over the gateway's limit, which would end the connection.
   * @param {WebSocket} open
   * @param {string} text
   */
  function put(open, text) {
    // A UTF-16 code unit takes at most three bytes in UTF-8.
    const size = 3 * text.length > maxFrameBytes ? new TextEncoder().encode(text).length : 0;
    if (size > maxFrameBytes) {
      const said = `the request has ${size} bytes; the gateway takes at most ${maxFrameBytes}`;
      throw new GatewayError("invalid_request", `${said} (its max_frame_bytes)`);
    }
    options.onframe?.(JSON.parse(text), "out");
    takenBy = Math.max(takenBy, Date.now()) + text.length / SLOW_BYTES;
    open.send(text);
  }

  /** Send a request that waited for a connection. @param {string} text @param {string} id */
  function sendLate(text, id) {
    try {
      if (socket) put(socket, text);
    } catch (error) {
      runs.get(id)?.fail(() => /** @type {Error} */ (error));
    }
  }

  /** Send a frame; only a request waits for a connection. @param {{type: string, [field: string]: any}} frame */
  function send(frame) {
    const text = JSON.stringify(frame);
    if (state === "open" && socket?.readyState === 1) put(socket, text);
    else if (state === "closed") throw ending("");
    else if (frame.type === "generate") wait(frame.id, text);
  }

  /** @param {string} id @param {string} text */
  function wait(id, text) {
    if (waiting.size >= MAX_WAITING) {
      throw new GatewayError("overloaded", "too many requests wait for a connection", { retryable: true });
    }
    waiting.set(id, text);
    /** @type {any} */ (setTimeout(expire, giveUpMs, id, text)).unref?.(); // a program may end before
  }

  /** Fail a run whose request still waits for a connection. @param {string} id @param {string} text */
  function expire(id, text) {
    if (waiting.get(id) !== text) return;
    waiting.delete(id);
    runs.get(id)?.fail((soFar) => new ConnectionLostError(soFar, "the gateway can't be reached"));
  }

  /** @param {string} id */
  function cancel(id) {
    const run = runs.get(id);
    const unsent = waiting.delete(id); // so the gateway has nothing to cancel
    if (state === "open" && !unsent) {
      if (run) leaving.set(id, run);
      if (run?.windowed) send({ type: "ack", id, seq: Math.max(run.last, 0) });
      send({ type: "cancel", id });
      return;
    }
    if (!unsent && run?.hasTicket) leaving.set(id, run);
    run?.receive({ type: "done", finish_reason: "cancelled", usage: NO_USAGE, timing: NO_TIMING });
  }

  /**
   * @param {GenerateOptions} request
   */
  function generate({ signal, onprogress, oncall, resumable = true, window = WINDOW, ...fields }) {
    lastId += 1;
    const id = fields.id ?? `${ownName}-${lastId}`;
    const bound = window === Infinity ? {} : { window };
    const start = () => send({ type: "generate", resumable, ...bound, ...fields, id });
    return begin(id, { signal, onprogress, oncall, window }, start);
  }

  /**
   * @param {Ticket} ticket
   * @param {ResumeOptions} [options]
   */
  function resume({ id, ticket, window }, options) {
    return join(id, { ...options, window, ticket });
  }

  /**
   * @param {Pick<Ticket, "ticket">} ticket
   * @param {FollowOptions} [asked]
   * @returns {Run}
   */
  function follow({ ticket }, asked) {
    const name = nodeOf(ticket);
    if (state === "open" && node && name && name !== node) return followBeside({ ticket }, asked);
    lastId += 1;
    return join(`${ownName}-${lastId}`, { window: WINDOW, ...asked, ticket, follow: true });
  }

  /** Follow a run of another gateway. @type {typeof follow} */
  function followBeside(ticket, asked) {
    const other = connect(url, { ...options, lazy: true, onstate: undefined });
    beside.add(other);
    const run = other.follow(ticket, asked);
    const end = () => {
      beside.delete(other);
      other.close();
    };
    run.result.then(end, end);
    return run;
  }

  /**
   * @param {string} id
   * @param {FollowOptions & {ticket: string, follow?: boolean}} options
   */
  function join(id, { after = -1, ...options }) {
    // Without a connection, it is resumed with the others once there is one.
    return begin(id, { ...options, after }, (run) =>
      state === "open" || state === "closed" ? send(run.resume()) : giveUpLater(),
    );
  }

  /**
   * Start a run by `start`, unless it is aborted already.
   * @param {string} id
   * @param {FollowOptions & {ticket?: string, follow?: boolean}} options
   * @param {(run: ReturnType<typeof createRun>) => void} start
   */
  function begin(id, { window, signal, ...options }, start) {
    /** @type {ReturnType<typeof createRun>} */
    const run = createRun(id, {
      ...options,
      cancel: () => cancel(id),
      ended: () => runs.get(id) === run && runs.delete(id),
      window: window ?? Infinity,
      ack: (seq) => state === "open" && send({ type: "ack", id, seq }),
    });
    if (signal?.aborted) {
      run.fail(() => abortError(signal));
      return run.handle;
    }
    if (signal) {
      const abort = () => run.abort(abortError(signal));
      const end = () => signal.removeEventListener("abort", abort);
      signal.addEventListener("abort", abort);
      run.handle.result.then(end, end); // because signals may outlive runs
    }
    if (runs.has(id) || leaving.has(id)) {
      run.fail(() => new GatewayError("duplicate_id", `\`${id}\` is already running`));
      return run.handle;
    }
    runs.set(id, run);
    try {
      if (!refusal) open();
      start(run);
    } catch (error) {
      run.fail(() => /** @type {Error} */ (error));
    }
    return run.handle;
  }

  if (!lazy) open();
  return {
    /** A promise of the `ready` frame; a new promise after each lost connection and each `open`. */
    get ready() {
      return ready.promise;
    },
    get state() {
      return state;
    },
    /** Dispatches "state" whenever `state` changes. */
    events,
    /** Start a generation. */
    generate,
    /**
     * Take over a generation of another page, or of this one before it was loaded again: its frames come again,
     * then new ones. A page that still has it gets a GatewayError `not_resumable`.
     */
    resume,
    /**
     * Read a generation of another page: `cancel` and leaving the loop end only the reading. A reader slower than
     * the gateway's memory gets a GatewayError `slow_client`.
     */
    follow,
    /** Connect after a `close`, a refusal, or with `lazy`; a run does so by itself. */
    open,
    /** End every run with an AbortError, and close the connection until the next run. */
    close() {
      for (const other of beside) other.close();
      if (state === "closed") return;
      closedByCaller = true;
      opening += 1;
      clearTimeout(timer);
      stopGivingUp();
      globalThis.document?.removeEventListener("visibilitychange", retry);
      if (state === "open") for (const id of runs.keys()) send({ type: "cancel", id });
      socket?.close(1000);
      lost(socket, 1000);
    },
  };
}

/**
 * Return a run: it receives the frames of one generation, and its `handle` gives chunks and a result.
 *
 * @param {string} id
 * @param {{
 *   onprogress?: (progress: Progress) => void, oncall?: (call: ToolCall) => void,
 *   cancel: () => void, ended: () => void, ack: (seq: number) => void,
 *   window: number, ticket?: string, after?: number, follow?: boolean,
 * }} hooks `ack` is called for each half of the window that the caller has processed
 */
function createRun(id, hooks) {
  const windowed = hooks.window !== Infinity;
  /** @type {ReturnType<typeof createOutput<RunEvent, Result>>} */
  const output = createOutput(hooks.cancel, use);
  /** Tool calls by index. @type {ToolCall[]} */
  const calls = [];
  let text = "";
  let reasoning = "";
  /** The texts of all answers but the first, by index. @type {string[]} */
  const others = [];
  let model = "";
  let over = false;
  let last = hooks.after ?? -1; // the highest `seq` received
  let read = last; // the highest `seq` that the caller has processed
  let acked = last;
  let rewound = false; // whether received frames were requested again, and none has come yet
  let ticket = hooks.ticket;
  /** @type {Error | null} */
  let aborted = null;

  /** @param {number} seq */
  function use(seq) {
    read = Math.max(read, seq);
    if (!windowed || over || read - acked < Math.max(1, hooks.window >> 1)) return;
    acked = read;
    hooks.ack(read);
  }

  /**
   * Return the frame that resumes the run. A window counts from `after`, so frames that wait for the caller are
   * requested again; else a whole window could come on top of them. @param {number} [after]
   */
  function resume(after = windowed ? read : last) {
    rewound = after < last;
    acked = after;
    output.came();
    output.add({ type: "resumed" });
    const bound = windowed ? { window: hooks.window } : {};
    return { type: "resume", id, ticket, after, ...(hooks.follow ? { follow: true, ...bound } : {}) };
  }

  /** Return whether the gateway no longer keeps all frames that wait here. @param {any} frame */
  function forgotten({ code }) {
    const again = rewound;
    rewound = false;
    return again && code === "not_resumable";
  }

  /** @param {Progress} progress @param {number} [seq] */
  function tell(progress, seq) {
    output.add({ type: "progress", progress }, seq);
    hooks.onprogress?.(progress);
  }

  function end() {
    over = true;
    hooks.ended();
  }

  /** @param {(text: string) => Error} make */
  function fail(make) {
    if (over) return;
    end();
    output.reject(aborted ?? make(text));
  }

  /** Add a part to its call; return the call. @param {any} frame @returns {ToolCall} */
  function addToCall(frame) {
    const { index, call_id: id, error, text: written } = frame;
    const call = (calls[index] ??= { index, id, name: "", arguments: "", complete: false });
    call.name ||= frame.name ?? "";
    call.arguments += frame.arguments ?? "";
    call.complete = frame.complete ?? false;
    if (error) Object.assign(call, { error, text: written });
    return call;
  }

  /** @param {{text?: string, finish_reason: string}} given @param {number} choice */
  function choiceOf(given, choice) {
    const said = choice ? others[choice] : text;
    return { text: given.text ?? said ?? "", finishReason: given.finish_reason };
  }

  /** @param {any} frame @param {number} [at] when it came, where the WebSocket tells */
  function receive(frame, at) {
    if (over) return;
    output.came(at);
    if (frame.seq <= last) return;
    last = frame.seq ?? last;
    switch (frame.type) {
      case "queued":
        tell({ queued: frame.position });
        break;
      case "loading":
        tell({
          loading: frame.model,
          done: frame.done ?? 0,
          total: frame.total ?? 0,
          warmingUp: frame.warming_up ?? false,
        });
        break;
      case "started":
        model = frame.model;
        ticket = frame.ticket;
        tell({ started: frame }, frame.seq);
        break;
      case "progress":
        tell({ done: frame.done, total: frame.total });
        break;
      case "chunk": {
        const { channel = "answer", logprobs, choice = 0 } = frame;
        if (choice) others[choice] = (others[choice] ?? "") + (channel === "answer" ? frame.text : "");
        else if (channel === "reasoning") reasoning += frame.text;
        else text += frame.text;
        const more = { ...(logprobs ? { logprobs } : {}), ...(choice ? { choice } : {}) };
        const type = channel === "answer" ? "text" : "reasoning";
        output.add({ type, text: frame.text, channel, ...more }, frame.seq);
        break;
      }
      case "tool_call": {
        if (frame.choice) {
          output.add(null, frame.seq); // of another answer than the first
          break;
        }
        const call = { ...addToCall(frame) };
        output.add({ type: "call", call, delta: frame.arguments ?? "" }, frame.seq);
        hooks.oncall?.(call);
        break;
      }
      case "done":
        for (const call of [...(frame.tool_calls ?? []), ...(frame.broken_calls ?? [])]) {
          const said = JSON.stringify(call.arguments);
          const index = calls.length;
          addToCall({ ...call, index, call_id: call.id, arguments: said, complete: true });
        }
        if (aborted) return fail(() => /** @type {Error} */ (aborted));
        end();
        output.resolve({
          text: frame.text ?? text,
          reasoning: frame.reasoning ?? reasoning,
          model,
          toolCalls: calls.filter((call) => call.complete && !call.error),
          brokenCalls: calls.filter((call) => call.error),
          finishReason: frame.finish_reason,
          ...(frame.choices ? { choices: frame.choices.map(choiceOf) } : {}),
          usage: frame.usage,
          timing: frame.timing,
        });
        break;
      case "error":
        fail(
          (soFar) =>
            new GatewayError(frame.code, frame.message, {
              retryable: frame.retryable,
              retryAfter: frame.retry_after,
              text: soFar,
            }),
        );
        break;
    }
  }

  return {
    receive,
    fail,
    resume,
    forgotten,
    windowed,
    get last() {
      return last;
    },
    /** Whether it can be resumed on another connection. */
    get hasTicket() {
      return ticket !== undefined;
    },
    /** @param {Error} reason */
    abort(reason) {
      if (over) return;
      aborted = reason;
      hooks.cancel();
      fail(() => reason);
    },
    handle: Object.assign(
      {
        id,
        /** The answer's text so far. */
        get text() {
          return text;
        },
        /** What `resume` of another client takes; null until the run has started. @returns {Ticket | null} */
        get ticket() {
          const { window } = hooks;
          return ticket === undefined ? null : { id, ticket, ...(windowed ? { window } : {}) };
        },
      },
      output.views,
    ),
  };
}

/**
 * Return an iterator as a stream, which takes nothing in advance.
 * @template I
 * @param {AsyncGenerator<I, void, void>} iterator
 * @param {() => void} cancel
 * @returns {ReadableStream<I>}
 */
function streamOf(iterator, cancel) {
  /** @param {ReadableStreamDefaultController<I>} controller */
  async function pull(controller) {
    const { done, value } = await iterator.next();
    if (done) controller.close();
    else controller.enqueue(value);
  }
  return new ReadableStream({ pull, cancel }, { highWaterMark: 0 });
}

/** Return the name of a ticket's gateway, "" if it has none. @param {string} ticket */
function nodeOf(ticket) {
  return ticket.slice(0, Math.max(0, ticket.lastIndexOf(".")));
}

/** Return an event if it is a chunk. @param {{type: string}} event */
function chunkOf(event) {
  return /** @type {Chunk | undefined} */ ("channel" in event ? event : undefined);
}

/**
 * Return the events that a run adds until its end, and `views` of them for its caller.
 *
 * @template {{type: string}} E
 * @template R
 * @param {() => void} cancel stops the run; called until its end only
 * @param {(seq: number) => void} [used] called with the number of each event that the loop has processed, and of
 *   each that comes before a loop, since a caller may await only the result
 */
export function createOutput(cancel, used = () => {}) {
  /** Events, null for what no loop gets, with their numbers. @type {[E | null, number | undefined][]} */
  const waiting = [];
  let loops = false;
  let over = false;
  /** @type {Error | undefined} */
  let failure;
  /** When that came which is added. @type {number | undefined} */
  let at;
  let wake = () => {};
  /** @type {ReturnType<typeof deferred<R>>} */
  const result = deferred();
  const stop = () => over || cancel();

  /** @param {E | null} event @param {number} [seq] */
  function add(event, seq) {
    waiting.push([event && at !== undefined ? { ...event, at } : event, seq]);
    if (!loops && seq !== undefined) used(seq);
    wake();
  }

  /**
   * @template I
   * @param {(event: E) => I | undefined} pick returns what the loop gets of an event, if anything
   * @returns {AsyncGenerator<I, void, void>}
   */
  async function* iterate(pick) {
    loops = true;
    try {
      for (;;) {
        const next = waiting.shift();
        if (next) {
          const [event, seq] = next;
          const item = event === null ? undefined : pick(event);
          if (item !== undefined) yield item;
          if (seq !== undefined) used(seq);
        } else if (failure) throw failure;
        else if (over) return;
        else await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    } finally {
      stop(); // if the loop was left early
    }
  }

  return {
    add,
    /** Say when what is added from now on came, if that is known. @param {number} [time] */
    came(time) {
      at = time;
    },
    /** End the run. @param {R} answer */
    resolve(answer) {
      over = true;
      add(/** @type {any} */ ({ type: "done", result: answer }));
      result.resolve(answer);
    },
    /** End the run. @param {Error} error */
    reject(error) {
      over = true;
      failure = error;
      wake();
      result.reject(error);
    },
    views: {
      /** A promise of the whole answer. Rejects with a GatewayError or an AbortError. */
      result: result.promise,
      /** Stop the model. The iteration ends without an error; the result has finishReason "cancelled". */
      cancel() {
        stop();
      },
      /** The chunks as a stream; cancelling it stops the model. */
      stream: () => streamOf(iterate(chunkOf), stop),
      /** All that happens, in order: text, parts of calls, progress, and at last the result. */
      events: () => iterate((event) => event),
      [Symbol.asyncIterator]: () => iterate(chunkOf),
    },
  };
}

/** @param {string} [url] */
function streamUrl(url) {
  const base = globalThis.location?.href;
  if (url === undefined ? !base?.startsWith("http") : !/^((http|ws)s?:\/)?[./]/i.test(url)) {
    const said = url === undefined ? "there is no page whose origin could be the gateway's" : `"${url}" is no URL`;
    throw new TypeError(`${said}; pass one such as http://127.0.0.1:8765`);
  }
  const full = new URL(url ?? "/v1/stream", base);
  full.protocol = full.protocol.replace("http", "ws");
  if (full.pathname === "/") full.pathname = "/v1/stream";
  return full.href;
}

/** @param {string} text */
function base64url(text) {
  const bytes = new TextEncoder().encode(text);
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {AbortSignal} signal */
function abortError(signal) {
  return signal.reason instanceof Error
    ? signal.reason
    : new DOMException("The generation was aborted", "AbortError");
}

/** Return a promise whose rejection need not be handled. @template T */
function deferred() {
  const made = /** @type {{promise: Promise<T>, resolve: (value: T) => void, reject: (reason: Error) => void}} */ ({});
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}
