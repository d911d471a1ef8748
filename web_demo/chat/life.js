// @ts-check
/** The life of an answer in numbers: its wait, its prompt, its pace, what interrupted it, its end. No I/O, no clock. */

/**
 * `waited` is for the connection; `pace` has the tokens of each `bucket`, null where there was no connection.
 * All times are in milliseconds; `at` is an index into `pace`, `replayed` a number of characters.
 * @typedef {{at: number, for: number, replayed: number}} Cut
 * @typedef {{
 *   answers: number, waited: number, queued: number, prompt: number, cached: number, first: number | null,
 *   tokens: number, rate: number, bucket: number, pace: (number | null)[], cuts: Cut[],
 *   ended: string | null, byUser: boolean, stopped: number | null, model: string, note: string,
 * }} Life
 */

const BUCKET_MS = 200;
const MOST_BUCKETS = 60; // more are joined in pairs
const BURST_MS = 60; // after which all frames that come again have come
const SHORT_MS = 5; // a wait that is shorter is none

/**
 * Record an answer from `now` on.
 * @param {number} now @param {number} answers
 */
export function createLife(now, answers) {
  /** @type {Life} */
  const life = {
    answers, waited: 0, queued: 0, prompt: 0, cached: 0, first: null, tokens: 0, rate: 0, bucket: BUCKET_MS, pace: [],
    cuts: [], ended: null, byUser: false, stopped: null, model: "", note: "",
  };
  /** What the answer waits for, in words; empty once it is written. */
  let state = "";
  let read = 0; // tokens of the prompt that are processed
  let sent = now; // when the request left; later than `now` without a connection
  let connected = true;
  let firstAt = 0;
  let lostAt = 0;
  let resuming = false; // whether frames come that were missed
  let resumedAt = 0; // when the first of them came
  let sinceResumed = 0; // characters
  let rateBefore = 0; // characters a millisecond, before the connection was lost
  let characters = 0;
  let askedToStop = 0;

  /** Return the index of the bucket of a time. @param {number} time */
  function bucketOf(time) {
    for (;;) {
      const index = Math.floor((time - firstAt) / life.bucket);
      if (index < MOST_BUCKETS) return index;
      const { pace } = life;
      life.pace = Array.from({ length: Math.ceil(pace.length / 2) }, (_, at) => {
        const [one, other = null] = pace.slice(2 * at, 2 * at + 2);
        return one === null && other === null ? null : (one ?? 0) + (other ?? 0);
      });
      for (const cut of life.cuts) cut.at = Math.floor(cut.at / 2);
      life.bucket *= 2;
    }
  }

  /** Count what came again: what came since, less what was new. @param {number} now @param {number} length in characters */
  function countReplayed(now, length) {
    if (!sinceResumed) resumedAt = now;
    sinceResumed += length;
    const cut = life.cuts[life.cuts.length - 1];
    cut.replayed = Math.max(1, Math.round(sinceResumed - rateBefore * (now - resumedAt)));
    resuming = now - resumedAt <= BURST_MS;
  }

  return {
    life,
    /** What is said while nothing is written yet. */
    state: () => state,
    /** The share of the prompt that is processed, from 0 to 1. */
    read: () => (life.first !== null || !life.prompt ? 1 : Math.max(read, life.cached) / life.prompt),
    /** For how long the connection has been lost, 0 if it has not. @param {number} time */
    lost: (time) => (lostAt ? time - lostAt : 0),
    /** @param {boolean} open @param {number} time */
    connection(open, time) {
      if (open && !connected && life.first === null) {
        life.waited += time - sent;
        sent = time;
      }
      if (!open && connected && life.prompt) {
        lostAt = time;
        rateBefore = characters / Math.max(1, time - firstAt);
      }
      connected = open;
      if (!life.prompt) state = open ? "" : "waiting for the gateway";
    },
    /** Frames are asked for again, because the connection is back. @param {number} time */
    resumed(time) {
      if (!lostAt) return;
      resuming = true;
      sinceResumed = 0;
      const begun = life.first !== null;
      const at = begun ? bucketOf(lostAt) : 0;
      life.cuts.push({ at, for: time - lostAt, replayed: 0 });
      if (begun) for (let index = at + 1; index < bucketOf(time); index += 1) life.pace[index] ??= null;
      lostAt = 0;
    },
    /** @param {import("../client.js").Progress} progress */
    progress(progress) {
      if ("loading" in progress) {
        const part = progress.total ? `, ${Math.round((100 * progress.done) / progress.total)} %` : "";
        state = `${progress.warmingUp ? "warming up" : "loading"} ${progress.loading}${part}`;
      } else if ("queued" in progress) {
        state = `number ${progress.queued} in the queue`;
      } else if ("started" in progress) {
        life.prompt = progress.started.prompt_tokens;
        life.cached = progress.started.cached_tokens;
        state = `reading the prompt: ${plural(life.prompt, "token")}`;
      } else {
        read = progress.done;
        life.prompt = progress.total || life.prompt;
        state = `reading the prompt: ${progress.done} of ${plural(progress.total, "token")}`;
      }
      if (life.first !== null) state = "";
    },
    /** @param {number} time @param {number} [length] in characters */
    token(time, length = 1) {
      if (life.first === null) {
        life.first = time - sent;
        firstAt = time;
        state = "";
      }
      if (resuming) countReplayed(time, length);
      characters += length;
      life.tokens += 1;
      const index = bucketOf(time);
      while (life.pace.length <= index) life.pace.push(0);
      life.pace[index] = (life.pace[index] ?? 0) + 1;
      const seconds = (time - firstAt) / 1000;
      if (seconds > 0) life.rate = (life.tokens - 1) / seconds;
    },
    /** @param {number} time */
    stopping(time) {
      askedToStop ||= time;
    },
    /** @param {import("../client.js").Result & {written?: number}} result `written` are all tokens of several rounds @param {number} time */
    finish({ finishReason, usage, timing, model, written = usage.completion_tokens }, time) {
      state = "";
      life.ended = finishReason;
      life.byUser = askedToStop > 0;
      if (askedToStop && finishReason === "cancelled") life.stopped = time - askedToStop;
      life.prompt = usage.prompt_tokens || life.prompt;
      life.cached = usage.cached_tokens ?? life.cached;
      life.tokens = written || life.tokens; // a stop without a connection has no usage
      life.queued = timing.queue >= SHORT_MS ? timing.queue : 0;
      if (life.answers === 1 && timing.tokens_per_second) life.rate = timing.tokens_per_second;
      life.model = model;
    },
    /** End without a result. */
    fail() {
      state = "";
      life.ended = "error";
    },
  };
}

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Return a time in words. @param {number} ms */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

/**
 * Return what is said of an answer, part by part; `title` says more about a part.
 * @param {Life} life
 * @returns {{kind: "wait" | "prompt" | "first" | "tokens" | "rate" | "cut" | "end" | "model", text: string, title: string}[]}
 */
export function partsOf(life) {
  const { answers, waited, queued, prompt, cached, first, tokens, rate, cuts, ended, model, note } = life;
  /** @type {ReturnType<typeof partsOf>} */
  const parts = [];
  if (waited >= SHORT_MS) parts.push({ kind: "wait", text: `waited ${duration(waited)} for the gateway`, title: "There was no connection when the message was sent." });
  if (queued) parts.push({ kind: "wait", text: `${duration(queued)} in the queue`, title: "Other requests came first." });
  if (prompt) {
    const text = cached ? `read ${prompt.toLocaleString("en")} (${cached.toLocaleString("en")} cached)` : `read ${prompt.toLocaleString("en")}`;
    parts.push({ kind: "prompt", text, title: `The prompt had ${plural(prompt, "token")}; ${cached.toLocaleString("en")} of them were known from before.` });
  }
  if (first !== null) parts.push({ kind: "first", text: `first token ${duration(first)}`, title: "From sending the message to the first part of the answer, measured on this page." });
  if (answers > 1) parts.push({ kind: "tokens", text: `${answers} answers`, title: "They were written at the same time." });
  if (tokens || (ended && ended !== "error")) parts.push({ kind: "tokens", text: plural(tokens, "token"), title: "What the model has written; a token is about three quarters of a word." });
  if (rate) parts.push({ kind: "rate", text: `${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en")} tokens/s${answers > 1 ? " together" : ""}`, title: `How fast ${answers > 1 ? "they were all" : "it was"} written, and the course of that.` });
  for (const cut of cuts)
    parts.push({ kind: "cut", text: `cut ${duration(cut.for)}, ${plural(cut.replayed, "character")} replayed`, title: "The connection was lost. The answer went on in the meantime, and nothing of it is missing. How much came again is told from its pace." });
  const end = endOf(life);
  if (end) parts.push({ kind: "end", ...end });
  if (note) parts.push({ kind: "end", text: note, title: "" });
  if (model) parts.push({ kind: "model", text: model, title: "The model that has answered." });
  return parts;
}

/** @param {Life} life */
function endOf({ ended, byUser, stopped, tokens, answers }) {
  if (ended === "cancelled") {
    const after = stopped === null ? ` after ${plural(tokens, "token")}` : ` in ${duration(stopped)}`;
    const title = stopped === null ? "" : "From pressing Stop to the gateway's answer that the model has stopped.";
    return { text: `stopped by ${byUser ? "you" : "the gateway"}${after}`, title };
  }
  if (ended === "length" && answers === 1) return { text: "cut off at the longest answer", title: "“Longest answer” in the settings ends it here; “Continue” goes on." };
  return null;
}

/** Return what is said of an answer as one line. @param {Life} life */
export const sentenceOf = (life) => partsOf(life).map(({ text }) => text).join(" · ");

/**
 * Return the course of the pace as the data of SVG paths in a box of `width` by `height`: the line, and a mark for
 * each cut.
 * @param {Life} life @param {number} width @param {number} height
 */
export function courseOf({ pace, cuts }, width, height) {
  const most = Math.max(1, ...pace.map((count) => count ?? 0));
  const step = width / Math.max(1, pace.length - 1);
  let line = "";
  let drawing = false;
  for (const [index, count] of pace.entries()) {
    if (count === null) drawing = false;
    else {
      const y = height - (height * count) / most;
      line += `${drawing ? "L" : "M"}${(index * step).toFixed(1)} ${y.toFixed(1)}`;
      drawing = true;
    }
  }
  const marks = cuts.map(({ at }) => `M${(at * step).toFixed(1)} 0V${height}`).join("");
  return { line, marks };
}
