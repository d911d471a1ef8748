// @ts-check
/** Tapes: the frames of a session with their times, as a file or a link. No I/O. */

const FORMAT = "mlx-gateway.tape";
const VERSION = 1;
const MOST_FRAMES = 200_000;
const MOST_BYTES = 64 << 20; // of a tape that was unpacked
export const MOST_LINK = 30_000; // characters of a link

/**
 * @typedef {import("../shell/socket.js").Way} Way
 * @typedef {[at: number, way: Way, frame: any]} Recorded `at` is in milliseconds from the beginning
 * @typedef {{title: string, frames: Recorded[]}} Tape
 */

/** Fields of which a client relies on the type. @type {[string, (value: unknown) => boolean][]} */
const FIELDS = [
  ["number", (/** @type {unknown} */ value) => Number.isFinite(value)],
  ["string", (/** @type {unknown} */ value) => typeof value === "string"],
].flatMap(([kind, fits]) => {
  const names = kind === "number"
    ? "seq index choice position done total prompt_tokens cached_tokens"
    : "type id text name arguments model code message finish_reason call_id channel";
  return names.split(" ").map((name) => /** @type {[string, (value: unknown) => boolean]} */ ([name, fits]));
});
const LISTS = ["tool_calls", "broken_calls", "choices", "logprobs", "models"];

/**
 * Return a tape of frames that have passed, without tickets and tokens.
 * @param {{at: number, way: Way, text: string}[]} passed the oldest first
 * @param {string} title
 * @returns {Tape}
 */
export function recorded(passed, title) {
  const began = passed[0]?.at ?? 0;
  return {
    title,
    frames: passed.map(({ at, way, text }) => {
      const when = Math.round(10 * (at - began)) / 10;
      if (way === "opened" || way === "closed") return [when, way, text];
      const { ticket, token, ...frame } = JSON.parse(text);
      return [when, way, frame];
    }),
  };
}

/** @param {Tape} tape */
export function toText({ title, frames }) {
  const lines = frames.map((one) => JSON.stringify(one)).join(",\n");
  return `{"format":"${FORMAT}","version":${VERSION},"title":${JSON.stringify(title)},"frames":[\n${lines}\n]}\n`;
}

/** Read a tape. Throws an Error that says what is wrong. @param {string} text @returns {Tape} */
export function fromText(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("this file is no tape: it is not JSON");
  }
  if (file?.format !== FORMAT) throw new Error("this file is no tape");
  if (file.version !== VERSION) throw new Error("this tape was made by another version of this page");
  const { title, frames } = file;
  if (typeof title !== "string" || !Array.isArray(frames) || frames.length > MOST_FRAMES || !frames.every(isRecorded)) throw damaged();
  return { title: title.slice(0, 200), frames: [...frames].sort(([one], [other]) => one - other) };
}

const damaged = () => new Error("this tape is damaged");

/** @param {any} one */
function isRecorded(one) {
  if (!Array.isArray(one) || one.length !== 3 || !Number.isFinite(one[0]) || one[0] < 0) return false;
  const [, way, frame] = one;
  if (way === "opened" || way === "closed") return typeof frame === "string";
  if (way !== "in" && way !== "out") return false;
  if (frame === null || typeof frame !== "object" || Array.isArray(frame) || typeof frame.type !== "string") return false;
  return (
    FIELDS.every(([name, fits]) => frame[name] === undefined || frame[name] === null || fits(frame[name])) &&
    LISTS.every((name) => frame[name] === undefined || frame[name] === null || Array.isArray(frame[name]))
  );
}

/** Return a tape as a part of an address, null if it is too long for one. @param {Tape} tape */
export async function toLink(tape) {
  const bytes = await through(new TextEncoder().encode(toText(tape)), new CompressionStream("deflate-raw"));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  const link = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return link.length > MOST_LINK ? null : link;
}

/** Read a tape of an address. Throws an Error that says what is wrong. @param {string} link @returns {Promise<Tape>} */
export async function fromLink(link) {
  let text;
  try {
    const bytes = Uint8Array.from(atob(link.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
    text = new TextDecoder().decode(await through(bytes, new DecompressionStream("deflate-raw")));
  } catch {
    throw new Error("this link is damaged; perhaps a part of it was lost");
  }
  return fromText(text);
}

/** @param {Uint8Array<ArrayBuffer>} bytes @param {CompressionStream | DecompressionStream} stream */
async function through(bytes, stream) {
  const parts = [];
  let size = 0;
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > MOST_BYTES) throw damaged();
    parts.push(part.value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Return the time of the last frame, in milliseconds. @param {Tape} tape */
export const lengthOf = ({ frames }) => frames.at(-1)?.[0] ?? 0;

/**
 * Return the generations of a tape with what was asked, in their order.
 * @param {Tape} tape
 * @returns {{id: string, title: string}[]}
 */
export function askedIn({ frames }) {
  /** @type {Map<string, string>} */
  const asked = new Map();
  for (const [, way, frame] of frames) {
    if (way !== "in" && way !== "out") continue;
    if (frame.type === "generate") asked.set(frame.id, promptOf(frame));
    else if (frame.id !== undefined && frame.id !== null && !asked.has(frame.id)) asked.set(frame.id, "");
  }
  return [...asked].map(([id, title]) => ({ id, title: title || `Answer ${shortened(id)}` }));
}

/** Return an id without what a client puts before its number. @param {string} id */
export const shortened = (id) => id.replace(/^[a-z0-9]{6,8}-(?=\d+$)/, "");

/** @param {any} frame of `generate` */
function promptOf({ prompt, messages }) {
  const content = prompt ?? (Array.isArray(messages) ? messages.at(-1)?.content : "");
  const text = Array.isArray(content) ? content.find((part) => part?.type === "text")?.text : content;
  return typeof text === "string" ? text.slice(0, 200) : "";
}
