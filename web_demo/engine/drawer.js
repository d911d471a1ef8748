// @ts-check
/** The drawer with what the server does now: its metrics as small curves. It asks only while it is seen. */

import { createCurve, curveRoot } from "../shell/curve.js";
import { make } from "../shell/dom.js";
import { meanOf, quantileOf, rateOf, readMetrics } from "./metrics.js";

const EVERY_MS = 1000;
const LATER_MS = 5000; // after a refusal
const POINTS = 300; // five minutes
const USUAL_PLACES = 32; // of a batch
const MOST_CELLS = 96;
const OVER = 10; // readings over which times are taken
const ENGINE = "mlx_gateway_engine_";
const GATEWAY = "mlx_gateway_";

/** @typedef {import("./metrics.js").Reading} Reading */
/** @typedef {{value: number | null, text: string, note?: string}} Shown `value` is null where there is none to draw */
/**
 * `long` is an older reading, `places` how many answers the only model may have in its batch, null with several.
 * @typedef {(now: Reading, before: Reading | null, long: Reading | null, places: number | null) => Shown} Read
 */

/** The curves, in their order. @type {{title: string, engine: boolean, read: Read}[]} */
const CURVES = [
  {
    title: "Tokens written a second", engine: true,
    read: (now, before) => {
      const value = rateOf(before, now, `${ENGINE}decode_tokens_total`);
      return { value, text: count(value), note: `${count(number(now, `${ENGINE}decode_tokens_total`))} so far` };
    },
  },
  {
    title: "Prompt tokens read a second", engine: true,
    read: (now, before) => {
      const value = rateOf(before, now, `${ENGINE}prefill_tokens_total`);
      const cached = number(now, `${ENGINE}cached_tokens_total`);
      const all = cached + number(now, `${ENGINE}prefill_tokens_total`);
      return { value, text: count(value), note: all ? `${Math.round((100 * cached) / all)} % of all came from the cache` : "" };
    },
  },
  {
    title: "Answers in the batch", engine: true,
    read: (now, _, __, places) => {
      const value = number(now, `${ENGINE}decoding`);
      return { value, text: places ? `${count(value)} of ${count(places)}` : count(value), note: "each step writes a token for every one" };
    },
  },
  {
    title: "Waiting in the queue", engine: true,
    read: (now) => {
      const value = number(now, `${ENGINE}waiting`);
      const parked = number(now, `${ENGINE}parked`);
      return { value, text: count(value), note: parked ? `${parked} parked for slow readers` : "" };
    },
  },
  {
    title: "A step of the model", engine: true,
    read: (now, before, long) => {
      const mean = meanOf(before, now, `${ENGINE}step_seconds`);
      const most = quantileOf(long, now, `${ENGINE}step_seconds`, 0.95);
      return { value: mean === null ? null : mean * 1000, text: time(mean), note: most === null ? "" : `19 of 20 under ${time(most)}` };
    },
  },
  {
    title: "Time to the first token", engine: false,
    read: (now, _, long) => times(now, long, `${GATEWAY}time_to_first_token_seconds`),
  },
  {
    title: "From one piece of text to the next", engine: false,
    read: (now, _, long) => times(now, long, `${GATEWAY}inter_token_latency_seconds`),
  },
  {
    title: "From a cancel to the free row", engine: false,
    read: (now, _, long) => times(now, long, `${GATEWAY}cancel_latency_seconds`),
  },
  {
    title: "Sent over the sockets a second", engine: false,
    read: (now, before) => {
      const value = rateOf(before, now, `${GATEWAY}sent_bytes_total`);
      return { value, text: bytes(value), note: `${count(rateOf(before, now, `${GATEWAY}sent_frames_total`))} frames` };
    },
  },
  {
    title: "Kept for prompts that begin alike", engine: true,
    read: (now) => {
      const value = number(now, `${ENGINE}prefix_bytes`);
      const hits = number(now, `${ENGINE}prefix_hits_total`);
      const asked = hits + number(now, `${ENGINE}prefix_misses_total`);
      return { value, text: bytes(value), note: asked ? `${Math.round((100 * hits) / asked)} % of ${count(asked)} prompts found some` : "" };
    },
  },
  {
    title: "Memory of answers in the batch", engine: true,
    read: (now) => {
      const value = number(now, `${ENGINE}committed_bytes`);
      return { value, text: bytes(value), note: `beside ${bytes(number(now, `${ENGINE}weights_bytes`))} of weights` };
    },
  },
];

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export function open(root, app) {
  const rows = make("div", { class: "rows", "aria-hidden": "true" });
  const said = make("p", { class: "engine-said" });
  const cards = CURVES.map(({ title, engine }) => createCard(title, engine));
  const wrong = make("p", { class: "engine-wrong", role: "alert" });
  /** @type {Reading[]} */
  let readings = [];
  let shown = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @type {AbortController | null} */
  let asking = null;

  root.classList.add("engine");
  root.tabIndex = 0; // so that a keyboard can scroll it
  root.append(rows, said, wrong, make("div", { class: "engine-cards" }, ...cards.map((card) => card.root)));
  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : begin()));

  function begin() {
    if (shown && !document.hidden && !asking && timer === undefined) ask();
  }

  function pause() {
    clearTimeout(timer);
    timer = undefined;
    asking?.abort();
    asking = null;
  }

  async function ask() {
    timer = undefined;
    const mine = (asking = new AbortController());
    let wait = EVERY_MS;
    try {
      add(readMetrics(await fetched(mine.signal), performance.now()));
      put(wrong, "");
    } catch (error) {
      if (mine.signal.aborted) return;
      put(wrong, /** @type {Error} */ (error).message);
      wait = LATER_MS;
    }
    if (asking !== mine) return;
    asking = null;
    timer = setTimeout(ask, wait);
  }

  /** @param {AbortSignal} signal */
  async function fetched(signal) {
    const token = app.token();
    const headers = token ? { Authorization: `Bearer ${token}` } : undefined;
    let answer;
    try {
      answer = await fetch("/metrics", { signal, headers });
    } catch {
      throw new Error("The gateway doesn't answer.");
    }
    if (answer.status === 429) throw new Error("The gateway answers no more requests of this address for a while.");
    if (!answer.ok) throw new Error(`The gateway answers with ${answer.status}.`);
    return answer.text();
  }

  /** @param {Reading} now */
  function add(now) {
    const before = readings.at(-1) ?? null;
    const long = readings.at(-OVER) ?? readings[0] ?? null;
    readings = [...readings.slice(1 - OVER), now];
    const engine = now.numbers.has(`${ENGINE}decoding`);
    for (const [index, card] of cards.entries()) card.show(CURVES[index].read(now, before, long, places()), engine);
    showRows(now, engine);
  }

  /** How many answers the batch has room for, null where each of several models has its own. @returns {number | null} */
  function places() {
    const { ready } = app;
    return ready?.models.length === 1 ? (ready.limits.max_batch ?? null) : null;
  }

  /** @param {Reading} now @param {boolean} engine whether the provider has one */
  function showRows(now, engine) {
    const least = Math.max(Math.min(places() ?? USUAL_PLACES, MOST_CELLS), 1);
    const states = ["decoding", "prefilling", "parked", "waiting"];
    const counts = engine ? states.map((name) => number(now, `${ENGINE}${name}`)) : [number(now, `${GATEWAY}generations`), 0, 0, 0];
    const cells = counts.flatMap((some, index) => Array.from({ length: Math.min(some, 64) }, () => states[index])).slice(0, MOST_CELLS);
    while (rows.childElementCount > Math.max(least, cells.length)) rows.lastElementChild?.remove();
    while (rows.childElementCount < Math.max(least, cells.length)) rows.append(make("i"));
    for (const [index, cell] of /** @type {HTMLElement[]} */ ([...rows.children]).entries()) cell.dataset.state = cells[index] ?? "free";
    const words = ["being written", "being read", "parked", "queued"];
    const parts = counts.map((some, index) => (some ? `${some} ${words[index]}` : "")).filter(Boolean);
    const connections = number(now, `${GATEWAY}connections`);
    put(said, `${parts.join(" · ") || "idle"} · ${connections} ${connections === 1 ? "connection" : "connections"}`);
  }

  return {
    show() {
      shown = true;
      begin();
    },
    hide() {
      shown = false;
      pause();
      readings = []; // a rate over the time while it was closed would mean little
    },
  };
}

/** @param {string} title @param {boolean} engine whether it needs an engine behind the gateway */
function createCard(title, engine) {
  const drawn = curveRoot();
  const value = make("b");
  const note = make("span", { class: "engine-note" });
  const root = make("section", { class: "engine-card", "aria-label": title }, make("h3", {}, title), value, drawn, note);
  const curve = createCurve(drawn, { points: POINTS });
  return {
    root,
    /** @param {Shown} next @param {boolean} hasEngine */
    show(next, hasEngine) {
      root.hidden = engine && !hasEngine;
      put(value, next.text);
      put(note, next.note ?? "");
      curve.add(next.value);
    },
  };
}

/** @param {Reading} reading @param {string} name */
const number = (reading, name) => reading.numbers.get(name) ?? 0;

/** @param {Reading} now @param {Reading | null} long @param {string} name @returns {Shown} */
function times(now, long, name) {
  const lately = quantileOf(long, now, name, 0.5);
  const ever = quantileOf(null, now, name, 0.5);
  return { value: lately === null ? null : lately * 1000, text: time(lately), note: ever === null ? "" : `half of all under ${time(ever)}` };
}

/** @param {number | null} seconds */
function time(seconds) {
  if (seconds === null) return "–";
  const ms = seconds * 1000;
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${seconds.toFixed(1)} s`;
}

/** @param {number} value */
const count = (value) => Math.round(value).toLocaleString("en");

/** @param {number} value */
function bytes(value) {
  if (value < 1000) return `${Math.round(value)} B`;
  const power = Math.min(3, Math.floor(Math.log10(value) / 3));
  const amount = value / 1000 ** power;
  return `${amount < 10 ? amount.toFixed(1) : Math.round(amount)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
