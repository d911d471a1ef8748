// @ts-check
/** The page's own WebSocket: its answers are counted, its frames can be watched, and it can be cut. */

import { createTraffic } from "./traffic.js";

/** What the page closes a connection with that it means to resume. */
const CUT = 4000;

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

/** @param {MessageEvent} event */
const received = ({ data }) => tellWatchers(data, "in");

export class PageSocket extends WebSocket {
  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    super(url, protocols);
    newest = this;
    this.addEventListener("open", () => tellWatchers(this.protocol, "opened"));
    this.addEventListener("close", ({ code, reason }) => {
      traffic.closed();
      tellWatchers(reason ? `${code}, ${reason}` : `${code}`, "closed");
    });
    if (watchers.size) this.addEventListener("message", received);
  }

  /** The client's listener counts too: a second one for each frame would cost more than both do. @param {((event: MessageEvent) => void) | null} listener */
  set onmessage(listener) {
    super.onmessage = listener && ((event) => {
      traffic.received(event.data);
      listener(event);
    });
  }

  get onmessage() {
    return super.onmessage;
  }

  /** @param {string} text */
  send(text) {
    if (text.startsWith('{"type":"generate"')) asked = text;
    traffic.sent(text);
    if (watchers.size) tellWatchers(text, "out");
    super.send(text);
  }
}

/**
 * Call a function with each frame from now on. Returns what ends that.
 * @param {Watcher} watcher
 */
export function watchSocket(watcher) {
  watchers.add(watcher);
  newest?.addEventListener("message", received);
  return () => {
    watchers.delete(watcher);
    if (!watchers.size) newest?.removeEventListener("message", received);
  };
}

/** Return the newest `generate` frame of this page, null if there was none. */
export const lastRequest = () => (asked ? JSON.parse(asked) : null);

/** End the connection as a network would; false if there is none. */
export function cutSocket() {
  if (newest?.readyState !== WebSocket.OPEN) return false;
  newest.close(CUT, "the plug was pulled");
  return true;
}
