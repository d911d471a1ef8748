// @ts-check
/** The tape of an answer, made of its text and the pace that was kept with it. No I/O, no clock. */

import { textOf } from "../store/tree.js";

/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("../tapes/tape.js").Tape} Tape */

const USUAL_RATE = 40; // pieces of text a second, where no pace is known
const ENDS = ["stop", "length", "tool_calls", "cancelled"];

/**
 * Return a tape of an answer and what was asked last, without anything that was said before.
 * @param {Turn} turn @param {Turn | null} question
 * @returns {Tape}
 */
export function tapeOf(turn, question) {
  const id = "answer";
  const asked = question ? textOf(question) : "";
  const { first, queued = 0, prompt = 0, cached = 0, tokens = 0, rate = 0 } = turn.life ?? {};
  let at = queued;
  let seq = 0;
  /** @type {Tape["frames"]} */
  const frames = [
    [0, "out", { type: "generate", id, messages: [{ role: "user", content: asked }] }],
    [at, "in", { type: "started", id, seq, model: turn.model ?? "", prompt_tokens: prompt, cached_tokens: cached }],
  ];
  at = Math.max(at, first ?? 0);
  for (const { after, text, thinking } of piecesOf(turn, rate || USUAL_RATE)) {
    at += after;
    seq += 1;
    frames.push([at, "in", { type: "chunk", id, seq, text, ...(thinking ? { channel: "reasoning" } : {}) }]);
  }
  const usage = { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens, cached_tokens: cached };
  const { error, ended = "stop" } = turn;
  frames.push([at, "in", error || !ENDS.includes(ended)
    ? { type: "error", id, seq: seq + 1, code: error?.code ?? "internal", message: error?.message ?? "" }
    : { type: "done", id, seq: seq + 1, finish_reason: ended, usage, timing: { tokens_per_second: rate } }]);
  return { title: asked.slice(0, 200) || "An answer", frames };
}

/** @typedef {{after: number, text: string, thinking: boolean}} Piece `after` so many milliseconds */

/** Return the pieces of an answer as they came, or word by word. @param {Turn} turn @param {number} rate @returns {Piece[]} */
function piecesOf(turn, rate) {
  const said = textOf(turn);
  const thought = turn.reasoning ?? "";
  const pace = turn.pace ?? [];
  const [written, thinking] = [1, -1].map((sign) => pace.filter((length, index) => index % 2 && sign * length > 0).reduce((sum, length) => sum + sign * length, 0));
  if (written !== said.length || thinking !== thought.length)
    return [...words(thought, true, rate), ...words(said, false, rate)];
  let [at, thoughtAt] = [0, 0];
  /** @type {Piece[]} */
  const pieces = [];
  for (let index = 0; index < pace.length; index += 2) {
    const [after, length] = pace.slice(index, index + 2);
    if (length < 0) pieces.push({ after, text: thought.slice(thoughtAt, (thoughtAt -= length)), thinking: true });
    else pieces.push({ after, text: said.slice(at, (at += length)), thinking: false });
  }
  return pieces;
}

/** @param {string} text @param {boolean} thinking @param {number} rate @returns {Piece[]} */
const words = (text, thinking, rate) => (text.match(/\s*\S+\s*$|\s*\S+/g) ?? []).map((word) => ({ after: 1000 / rate, text: word, thinking }));
