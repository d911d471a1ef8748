"use client";
/**
 * React hooks for mlx-gateway.
 *
 *     const client = useGateway("http://127.0.0.1:8765");
 *     const { text, state, generate, stop } = useRun(client);
 *
 * A component that goes away stops its run. All components with the same address share one connection, which
 * outlives StrictMode's second mount and hot updates, and is closed a moment after the last of them has gone.
 */

import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { connect } from "../client.js";
import { runTools } from "../tool_loop.js";

/**
 * @import {
 *   Client, ConnectionState, ConnectOptions, GenerateOptions, Progress, Result, ResumeOptions, Run, Ticket,
 *   ToolCall, Usage
 * } from "../client.js"
 * @import { ToolOptions, ToolResult, ToolRun, ToolRunEvent } from "../tool_loop.js"
 * @typedef {{key: string, client: Client, options: ConnectOptions, users: number,
 *   timer?: ReturnType<typeof setTimeout>}} Shared A client, and the components that use it
 * @typedef {"idle" | "waiting" | "streaming" | "done" | "stopped" | "failed"} RunState `waiting` is until the
 *   first text or call
 * @typedef {ToolCall & {content?: string}} ShownCall `content` is what its function has returned
 * @typedef {{
 *   state: RunState, text: string, reasoning: string, calls: ShownCall[], progress: Progress | null,
 *   usage: Usage | null, result: Result | ToolResult | null, error: Error | null,
 * }} Shown What there is of the newest run
 * @typedef {{
 *   generate: (request: GenerateOptions) => Run, runTools: (request: ToolOptions) => ToolRun,
 *   resume: (ticket: Ticket, options?: ResumeOptions) => Run, stop: () => void,
 * }} RunActions Each stops the run before it
 */

/** For how long a client that no component uses is kept. */
const LINGER_MS = 1000;
/** @type {Map<string, Shared>} */
const clients = new Map();
/** @type {Shown} */
const IDLE = Object.freeze({
  state: "idle",
  text: "",
  reasoning: "",
  calls: [],
  progress: null,
  usage: null,
  result: null,
  error: null,
});

/**
 * Return the client of an address; components with the same address and token share it. It connects for its
 * first run, or with `lazy: false` when the component is mounted. Without `url` it is that of the page's origin.
 *
 * @param {string} [url]
 * @param {ConnectOptions} [options] callbacks and a `token` function may change with each render
 * @returns {Client}
 */
export function useGateway(url, options = {}) {
  const shared = sharedClient(url, options);
  const { lazy = true } = options;
  useEffect(() => {
    Object.assign(shared.options, options, { lazy: true });
  });
  useEffect(() => {
    const leave = hold(shared);
    if (!lazy) shared.client.open();
    return leave;
  }, [shared, lazy]);
  return shared.client;
}

/** Return the state of a client's connection. @param {Client} client @returns {ConnectionState} */
export function useConnectionState(client) {
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => {
      client.events.addEventListener("state", changed);
      return () => client.events.removeEventListener("state", changed);
    },
    [client],
  );
  return useSyncExternalStore(
    subscribe,
    () => client.state,
    () => "closed",
  );
}

/**
 * Return the newest run of this component as state, at most once a frame, and what starts and stops it.
 * `generate`, `runTools` and `resume` take what the client's do, and return its runs.
 *
 * @param {Client} client
 * @returns {Shown & RunActions}
 */
export function useRun(client) {
  const [store] = useState(createStore);
  const shown = useSyncExternalStore(store.subscribe, store.shown, () => IDLE);
  const actions = useMemo(
    () => ({
      generate: (/** @type {GenerateOptions} */ request) => store.follow(client.generate(request)),
      runTools: (/** @type {ToolOptions} */ request) => store.follow(runTools(client, request)),
      resume: (/** @type {Ticket} */ ticket, /** @type {ResumeOptions} */ options = {}) =>
        store.follow(client.resume(ticket, options)),
      stop: store.stop,
    }),
    [client, store],
  );
  return { ...shown, ...actions };
}

/** @param {string | undefined} url @param {ConnectOptions} given */
function sharedClient(url, given) {
  const key = JSON.stringify([url, typeof given.token === "string" ? given.token : null]);
  const known = clients.get(key);
  if (known) return known;
  const options = { ...given, lazy: true }; // the client reads its callbacks when it calls them
  /** @type {Shared} */
  const made = { key, client: connect(url, options), options, users: 0 };
  clients.set(key, made);
  letGo(made); // a render that is thrown away, or a server's, never holds it
  return made;
}

/** Keep a client open until the returned function is called. @param {Shared} shared */
function hold(shared) {
  clearTimeout(shared.timer);
  shared.users += 1;
  clients.set(shared.key, shared);
  return () => {
    shared.users -= 1;
    if (!shared.users) letGo(shared);
  };
}

/** Close a client that nobody has held for a moment. @param {Shared} shared */
function letGo(shared) {
  shared.timer = setTimeout(() => {
    if (clients.get(shared.key) === shared) clients.delete(shared.key);
    shared.client.close();
  }, LINGER_MS);
  /** @type {any} */ (shared.timer).unref?.();
}

/** Return what follows the runs of one component. */
function createStore() {
  let shown = IDLE;
  /** @type {Run | ToolRun | null} */
  let current = null;
  /** @type {Set<() => void>} */
  const listeners = new Set();
  const stop = () => current?.cancel();

  /** @param {Shown} next */
  function show(next) {
    shown = next;
    for (const listener of listeners) listener();
  }

  /** Stop the run before, and show this one. @template {Run | ToolRun} R @param {R} run @returns {R} */
  function follow(run) {
    stop();
    current = run;
    show({ ...IDLE, state: "waiting" });
    watch(run);
    return run;
  }

  /** @param {Run | ToolRun} run */
  async function watch(run) {
    let next = shown;
    let waits = false;
    /** @param {Partial<Shown>} more */
    const later = (more) => {
      next = { ...next, ...more };
      if (waits) return;
      waits = true;
      onFrame(() => {
        waits = false;
        if (run === current && next !== shown) show(next);
      });
    };
    /** @type {Partial<Shown>} */
    let end;
    try {
      for await (const event of run.events()) {
        if (run !== current) return;
        if (event.type === "done") break;
        later(changes(event, next, run.text));
      }
      const result = await run.result;
      const state = result.finishReason === "cancelled" ? "stopped" : "done";
      end = { state, result, usage: result.usage };
    } catch (caught) {
      const error = /** @type {Error} */ (caught);
      end = error.name === "AbortError" ? { state: "stopped" } : { state: "failed", error };
    }
    next = { ...next, ...end, text: run.text, progress: null };
    if (run === current) show(next);
  }

  return {
    shown: () => shown,
    follow,
    stop,
    /** @param {() => void} listener */
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
        // StrictMode and hot updates subscribe again at once.
        setTimeout(() => listeners.size || stop());
      };
    },
  };
}

/**
 * Return what an event changes.
 * @param {ToolRunEvent} event @param {Shown} shown @param {string} text
 * @returns {Partial<Shown>}
 */
function changes(event, shown, text) {
  switch (event.type) {
    case "text":
      return { state: "streaming", text, progress: null };
    case "reasoning":
      return event.choice ? {} : { state: "streaming", reasoning: shown.reasoning + event.text, progress: null };
    case "call":
      return { state: "streaming", calls: withCall(shown.calls, event.call), progress: null };
    case "result":
      return { calls: withCall(shown.calls, { ...event.call, content: event.content }) };
    case "progress":
      return { progress: event.progress };
    default:
      return {};
  }
}

/** Return calls with a newer version of one of them. @param {ShownCall[]} calls @param {ShownCall} call */
function withCall(calls, call) {
  const others = calls.filter(({ id }) => id !== call.id);
  return [...others, call];
}

/** Call a function before the page is painted again; soon, where nothing is. @param {() => void} callback */
function onFrame(callback) {
  const { requestAnimationFrame: before, document: page } = globalThis;
  if (before && !page?.hidden) before(callback);
  else setTimeout(callback, 16);
}
