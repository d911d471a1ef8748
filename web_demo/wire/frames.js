// @ts-check
/** The frames that have passed: the newest of them, and what they come to. No I/O. */

const MOST = 20_000; // frames that are kept
const encoder = new TextEncoder();
const scratch = new Uint8Array(1 << 16);

/** @typedef {import("../shell/socket.js").Way} Way */
/** @typedef {{number: number, at: number, way: Way, text: string, size: number}} Passed `at` is in milliseconds */
/** @typedef {{type: string, id: string, says: string}} Summary */

/** Return how many bytes a text has. @param {string} text */
export function sizeOf(text) {
  if (text.length * 3 > scratch.length) return encoder.encode(text).length;
  return encoder.encodeInto(text, scratch).written;
}

export function createFrames() {
  /** @type {Passed[]} */
  let all = [];
  let count = 0;
  let query = "";
  /** @type {Way | ""} */
  let wanted = "";
  /** Those that fit the filter. @type {Passed[]} */
  let chosen = [];
  const sums = { in: { frames: 0, bytes: 0 }, out: { frames: 0, bytes: 0 } };

  /** @param {Passed} one */
  function fits({ way, text }) {
    return (!wanted || way === wanted) && (!query || text.toLowerCase().includes(query));
  }

  return {
    /** @param {string} text @param {Way} way @param {number} at */
    add(text, way, at) {
      count += 1;
      const one = { number: count, at, way, text, size: sizeOf(text) };
      if (way === "in" || way === "out") {
        sums[way].frames += 1;
        sums[way].bytes += one.size;
      }
      all.push(one);
      if (all.length > MOST * 1.1) {
        all = all.slice(-MOST);
        chosen = all.filter(fits);
      } else if (fits(one)) chosen.push(one);
    },
    /** @param {string} text that a frame must have @param {Way | ""} way */
    filter(text, way) {
      query = text.trim().toLowerCase();
      wanted = way;
      chosen = all.filter(fits);
    },
    clear() {
      all = [];
      chosen = [];
      for (const sum of Object.values(sums)) sum.frames = sum.bytes = 0;
    },
    get chosen() {
      return chosen;
    },
    get all() {
      return all;
    },
    sums,
  };
}

/** Return what a row says of a frame. @param {Passed} frame @returns {Summary} */
export function summaryOf({ way, text }) {
  if (way === "opened" || way === "closed") return { type: way, id: "", says: text };
  let frame;
  try {
    frame = JSON.parse(text);
  } catch {
    return { type: "?", id: "", says: text };
  }
  const { type, id = "", ...rest } = frame;
  return { type: String(type), id: String(id), says: (SAYS[type] ?? plain)(rest) };
}

/** @param {any} rest */
const plain = (rest) => (Object.keys(rest).length ? JSON.stringify(rest) : "");

/** @type {Record<string, (frame: any) => string>} */
const SAYS = {
  chunk: ({ seq, text, channel, choice }) =>
    `#${seq} ${JSON.stringify(text)}${channel ? ` ${channel}` : ""}${choice ? ` of answer ${choice}` : ""}`,
  ack: ({ seq }) => `#${seq} and all before`,
  queued: ({ position }) => `place ${position}`,
  started: ({ seq, model, prompt_tokens, cached_tokens }) =>
    `#${seq} ${model}, ${prompt_tokens} tokens of prompt, ${cached_tokens} cached`,
  progress: ({ done, total }) => `${done} of ${total} tokens read`,
  done: ({ seq, finish_reason, usage }) => `#${seq} ${finish_reason}, ${usage?.completion_tokens} tokens`,
  error: ({ code, message }) => `${code}: ${message}`,
  generate: ({ messages, prompt }) => JSON.stringify(messages?.at?.(-1)?.content ?? prompt ?? ""),
  resume: ({ after }) => `after #${after}`,
};
