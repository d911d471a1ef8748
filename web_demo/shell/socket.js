// @ts-check
/** The page's own WebSocket: its answers are counted, its frames can be watched, and it can be cut. */

import { createTraffic } from "./traffic.js";

/** What the page closes a connection with that it means to resume. */
const CUT = 4000;
export const FRAME_MS = 16;

/**
 * @typedef {"in" | "out" | "opened" | "closed"} Way `in` is from the gateway; the others have a text that is no frame
 * @typedef {(text: string, way: Way) => void} Watcher
 */

/** @type {Set<Watcher>} */
const watchers = new Set();
/** @type {PageSocket | null} */
let newest = null;
let asked = ""; // the newest request

/** What runs on the page's connection. */
export const traffic = createTraffic();

/** Tell who watches of a frame: of the socket, or of a tape. @param {string} text @param {Way} way */
export function tellWatchers(text, way) {
  for (const watcher of watchers) watcher(text, way);
}

/** The thread that has the sockets, null where it has failed. @type {Worker | null} */
let worker = null;
/** The sockets that are not closed. @type {Map<number, PageSocket>} */
const sockets = new Map();
let made = 0;
let every = FRAME_MS; // milliseconds for which text is held

/** Let text come at once, or together with what comes in so many milliseconds. @param {number} ms */
export function holdText(ms) {
  every = ms;
  worker?.postMessage([0, "every", ms]);
}

/** Return the thread, a new one if there is none. */
function threadOf() {
  if (worker) return worker;
  const started = new Worker("/shell/socket_worker.js");
  started.onmessage = ({ data: [id, what, first, second] }) => sockets.get(id)?.told(what, first, second);
  started.onerror = () => {
    worker = null; // the next connection tries again
    started.terminate();
    for (const one of [...sockets.values()]) one.told("close", 1006, "");
  };
  started.postMessage([0, "every", every]);
  return (worker = started);
}

/** What `connect` of client.js needs of a WebSocket. */
export class PageSocket {
  readyState = 0;
  protocol = "";
  /** @type {((event: {}) => void) | null} */
  onopen = null;
  /** @type {((event: {data: string, at: number}) => void) | null} `at` is when it came, which was a little earlier */
  onmessage = null;
  /** @type {((event: {code: number, reason: string}) => void) | null} */
  onclose = null;

  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    this.id = made += 1;
    newest = this;
    sockets.set(this.id, this);
    threadOf().postMessage([this.id, "open", url, protocols]);
  }

  /** @param {"open" | "frames" | "close"} what @param {any} first @param {any} second */
  told(what, first, second) {
    if (what === "frames") return this.take(first, second);
    if (what === "open") {
      this.readyState = 1;
      this.protocol = first;
      tellWatchers(first, "opened");
      return this.onopen?.({});
    }
    this.readyState = 3;
    sockets.delete(this.id);
    traffic.closed();
    tellWatchers(second ? `${first}, ${second}` : `${first}`, "closed");
    this.onclose?.({ code: first, reason: second });
  }

  /** @param {string[]} texts @param {number[]} times */
  take(texts, times) {
    for (const [index, data] of texts.entries()) {
      traffic.received(data);
      if (watchers.size) tellWatchers(data, "in");
      this.onmessage?.({ data, at: times[index] - performance.timeOrigin });
    }
  }

  /** @param {string} text */
  send(text) {
    if (text.startsWith('{"type":"generate"')) asked = text;
    traffic.sent(text);
    if (watchers.size) tellWatchers(text, "out");
    threadOf().postMessage([this.id, "send", text]);
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code, reason) {
    this.readyState = Math.max(2, this.readyState);
    worker?.postMessage([this.id, "close", code, reason]);
  }
}

/**
 * Call a function with each frame from now on. Returns what ends that.
 * @param {Watcher} watcher
 */
export function watchSocket(watcher) {
  watchers.add(watcher);
  return () => void watchers.delete(watcher);
}

/** Return the newest `generate` frame of this page, null if there was none. */
export const lastRequest = () => (asked ? JSON.parse(asked) : null);

/** End the connection as a network would; false if there is none. */
export function cutSocket() {
  if (newest?.readyState !== WebSocket.OPEN) return false;
  newest.close(CUT, "the plug was pulled");
  return true;
}
