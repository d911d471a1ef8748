/** What adapters have in common. */

import { connect } from "../client.js";

/**
 * @import { Client, GenerateOptions, Message, Part, Run, RunEvent } from "../client.js"
 * @typedef {string | Client} Gateway The gateway's address, or a client that is connected to it
 * @typedef {Omit<GenerateOptions, "messages" | "prompt" | "signal" | "id" | "onprogress" | "oncall">} Fields What is
 *   asked for with each answer, `model` or `temperature` for example
 * @typedef {NonNullable<GenerateOptions["files"]>[number]} File
 * @typedef {Pick<Storage, "getItem" | "setItem" | "removeItem">} Store
 * @typedef {{text?: string, url?: string, type?: string, name?: string | undefined}} Shown A part of a user's message:
 *   a text, or an image or another file as a data URL
 */

/** Clients by address, which connect for their first run. @type {Map<string, Client>} */
const clients = new Map();

/** Return the client of a gateway, one for each address. @param {Gateway} gateway @returns {Client} */
export function clientOf(gateway) {
  if (typeof gateway !== "string") return gateway;
  const client = clients.get(gateway) ?? connect(gateway, { lazy: true });
  clients.set(gateway, client);
  return client;
}

/**
 * Return a user's message, and the files that go beside the messages: texts and images are in the message, other
 * files are not.
 *
 * @param {Shown[]} parts
 * @returns {{message: Message, files: File[]}}
 */
export function userTurn(parts) {
  const files = [];
  /** @type {Part[]} */
  const content = [];
  for (const { text, url = "", type = "", name } of parts) {
    if (text !== undefined) content.push({ type: "text", text });
    else if (type.startsWith("image")) content.push({ type: "image_url", image_url: { url } });
    else files.push({ name: name ?? "file", mime: type, data: url.slice(url.indexOf(",") + 1) });
  }
  const texts = content.map((part) => (part.type === "text" ? part.text : null));
  const plain = texts.includes(null) ? content : texts.join("\n");
  return { message: { role: "user", content: plain }, files };
}

/**
 * Return an answer as messages: those of each step, which ends with its calls, and then their results.
 *
 * @param {{text: string, reasoning: string, calls: {id: string, name: string, input: unknown, result: unknown}[]}[]}
 *   steps
 * @returns {Message[]}
 */
export function answerTurns(steps) {
  return steps.flatMap(({ text, reasoning, calls }) => {
    if (!calls.length) return text ? [{ role: /** @type {const} */ ("assistant"), content: text }] : [];
    /** @type {Message[]} */
    const turns = [
      {
        role: "assistant",
        content: text,
        ...(reasoning ? { reasoning_content: reasoning } : {}),
        tool_calls: calls.map(({ id, name, input }) => ({
          ...{ id, type: "function", function: { name, arguments: JSON.stringify(input ?? {}) } },
        })),
      },
      ...calls.map(({ id, name, result }) => ({
        ...{ role: /** @type {const} */ ("tool"), tool_call_id: id, name, content: resultText(result) },
      })),
    ];
    return turns;
  });
}

/** Return a tool's result as a message's text. @param {unknown} value */
export function resultText(value) {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "null");
}

/** Return JSON's value, or nothing of a text that is not JSON. @param {string} text @returns {any} */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Return what keeps values as JSON, such as the tickets of running answers, for the page when it is loaded again.
 * @template T
 * @param {Store} [storage] the page's sessionStorage by default; without one nothing is kept
 */
export function createKeeper(storage = globalThis.sessionStorage) {
  /** @param {string} id */
  const keyOf = (id) => `mlx-gateway:${id}`;
  return {
    /** @param {string} id @param {T} value */
    keep(id, value) {
      try {
        storage?.setItem(keyOf(id), JSON.stringify(value));
      } catch (error) {
        console.warn("the answer can't be resumed after a reload:", error); // the storage is full
      }
    },
    /** @param {string} id @returns {T | undefined} */
    kept: (id) => parsed(storage?.getItem(keyOf(id)) ?? ""),
    /** @param {string} id */
    forget: (id) => storage?.removeItem(keyOf(id)),
  };
}

/** How this page gives back what it owns, by the ids of the runs. @type {Map<string, () => void>} */
const owned = new Map();
const LEAVING_MS = 1000; // in which a page that is left, or loaded again, gives back what it owned

/**
 * Let this page be the one that receives a run; resolves to false if another page that is open does, which would lose
 * the rest of the answer. Without locks, as in a page without https, no page knows of another.
 * @param {string} id @returns {Promise<boolean>}
 */
export async function own(id) {
  const locks = globalThis.navigator?.locks;
  if (!locks || owned.has(id)) return true;
  return new Promise((resolve) => {
    const held = () =>
      new Promise((release) => {
        owned.set(id, () => release(undefined));
        resolve(true);
      });
    locks.request(`mlx-gateway:${id}`, { signal: AbortSignal.timeout(LEAVING_MS) }, held).catch(() => resolve(false));
  });
}

/** Let other pages receive a run, which has ended here. @param {string} id */
export function disown(id) {
  owned.get(id)?.();
  owned.delete(id);
}

/**
 * Return the events of a resumed run once the gateway has sent the first. Raises GatewayError if it has it no more.
 * @param {Run} run
 * @returns {Promise<AsyncGenerator<RunEvent, void, void>>}
 */
export async function resumedEvents(run) {
  const events = run.events();
  await events.next(); // that it is resumed
  const first = await events.next();
  return joined(first, events);
}

/**
 * Yield what was taken of an iterator already, then the rest.
 * @template T
 * @param {IteratorResult<T, void>} first
 * @param {AsyncGenerator<T, void, void>} rest
 */
async function* joined(first, rest) {
  try {
    if (!first.done) yield first.value;
    yield* rest;
  } finally {
    await rest.return();
  }
}

/**
 * Return an iterator as a stream, which takes nothing in advance; cancelling it leaves the iterator, whose first
 * value must come at once: a generator that was never asked for one would not run what it does in the end.
 * @template T
 * @param {AsyncIterator<T>} iterator
 * @param {() => void} stop lets a value come that is waited for
 * @returns {ReadableStream<T>}
 */
export function streamOf(iterator, stop) {
  let begun = false;
  return new ReadableStream(
    {
      async pull(controller) {
        begun = true;
        const { done, value } = await iterator.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        stop();
        if (!begun) await iterator.next();
        iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}
