// @ts-check
/** One story of the wall: its tile, and the run that fills it. */

import { make } from "../shell/dom.js";

/** @typedef {"idle" | "queued" | "loading" | "reading" | "writing" | "slow" | "cut" | "done" | "stopped" | "failed"} State */
/** @typedef {import("../client.js").Run} Run */
/** @typedef {ReturnType<typeof createTile>} Tile */

/** States in which the gateway has the story. @type {ReadonlySet<State>} */
export const LIVE = new Set(["queued", "loading", "reading", "writing", "slow", "cut"]);
const SLOW_MS = 400; // between two pieces of text that a slow reader takes
const RATE_MS = 1500; // over which a tile's rate is measured
const TEXT_MS = 100; // between two times that a tile's text is shown: a browser takes longer to lay out a tile than to add words to it
const COUNT_MS = 200; // between two times that a tile's count is shown
const BLOCK = 240; // characters of a block of text after which a sentence's end begins another one
const LONGEST = 600; // characters of a block; laying one out takes time with its length
const BLOCKS = 24; // that are kept, with at most so many characters; the tile has no room for more
const KEPT = 2000;

/**
 * @param {string} title
 * @param {{dirty: (tile: any) => void, token: () => void, changed: () => void, still?: boolean}} hooks `dirty`
 *   asks for a `paint`, `token` counts a piece of text, `changed` tells of another state; `still` says that a click does nothing
 */
export function createTile(title, hooks) {
  const text = make("div", { class: "tile-text" });
  /** The end of what is shown. */
  let words = document.createTextNode("");
  const said = make("span", { class: "tile-state" });
  const count = make("span", { class: "tile-count" });
  const bar = make("i", { class: "tile-bar" });
  const act = make("button", { type: "button", class: "tile-act", tabindex: "-1" });
  const root = make("div", { class: "tile", "data-state": "idle", role: "group", "aria-label": title });
  text.append(make("p", {}, words));
  root.append(bar, make("strong", { class: "tile-title" }, title), text, make("p", { class: "tile-foot" }, said, count), act);

  /** @type {State} */
  let state = "idle";
  let note = "";
  let wrong = ""; // what a failure says
  let waiting = "";
  let all = "";
  let kept = 0; // characters that are shown
  let pieces = 0;
  let countAt = 0;
  let paintedAt = 0;
  let urgent = true; // whether more than text is to be shown
  let emptied = false; // whether the shown text is of the run before
  let read = 0; // of the prompt, from 0 to 1
  let cached = 0;
  let promptTokens = 0;
  let cachedTokens = 0;
  let isSlow = false;
  /** Lets a slow reader take the next piece at once. */
  let hurry = () => {};
  let stopAt = 0;
  let stopped = 0; // milliseconds from the click to the end
  let rate = 0;
  let rateAt = 0;
  let ratePieces = 0;
  /** @type {Run | null} */
  let run = null;
  /** Resolves when the run has ended. @type {Promise<unknown>} */
  let over = Promise.resolve();

  /** @param {State} next @param {string} [words] */
  function become(next, words = "") {
    const other = next !== state;
    urgent = true;
    state = next;
    note = words;
    hooks.dirty(self);
    if (other) hooks.changed();
  }

  const writing = () => become(isSlow ? "slow" : "writing");

  /** @param {import("../client.js").Progress} progress */
  function progressed(progress) {
    if ("queued" in progress) become("queued", `${progress.queued}`);
    else if ("loading" in progress) become("loading", progress.total ? `${Math.round((100 * progress.done) / progress.total)} %` : "");
    else if ("started" in progress) {
      promptTokens = progress.started.prompt_tokens;
      cachedTokens = progress.started.cached_tokens;
      cached = read = promptTokens ? cachedTokens / promptTokens : 0;
      become("reading");
    } else {
      read = progress.total ? progress.done / progress.total : 1;
      become("reading");
    }
  }

  /** @param {import("../client.js").RunEvent} event */
  async function happened(event) {
    if (event.type === "progress") progressed(event.progress);
    else if (event.type === "text" || event.type === "reasoning") {
      waiting += event.text;
      pieces += 1;
      hooks.token();
      if (state !== "writing" && state !== "slow") writing();
      hooks.dirty(self);
      if (isSlow) await pause();
    } else if (event.type === "resumed") {
      if (pieces) writing();
      else become("reading");
    }
  }

  function pause() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, SLOW_MS);
      hurry = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** Add text to the last block, or begin another one; only what can be seen stays. @param {string} more */
  function append(more) {
    all += more;
    kept += more.length;
    words.appendData(more);
    const { data } = words;
    if (!data.includes("\n") && data.length < BLOCK) return;
    const end = Math.max(data.lastIndexOf("\n") + 1, data.length < BLOCK ? 0 : data.lastIndexOf(". ") + 2);
    const at = end > 1 ? end : data.length > LONGEST ? data.length : 0;
    if (!at) return;
    words.data = data.slice(0, at).replace(/\n$/, "");
    words = document.createTextNode(data.slice(at));
    text.append(make("p", {}, words));
    for (let first = text.firstElementChild; first && (kept > KEPT || text.childElementCount > BLOCKS); first = text.firstElementChild) {
      kept -= first.textContent?.length ?? 0;
      first.remove();
    }
  }

  /** @param {Run} next */
  async function fill(next) {
    run = next;
    emptied = true;
    waiting = wrong = "";
    pieces = ratePieces = read = cached = rate = rateAt = stopAt = stopped = promptTokens = cachedTokens = 0;
    isSlow = false;
    become("queued");
    try {
      for await (const event of next.events()) await happened(event);
      const { finishReason, usage, timing } = await next.result;
      rate = timing.tokens_per_second || rate;
      pieces = usage.completion_tokens || pieces;
      stopped = finishReason === "cancelled" && stopAt ? performance.now() - stopAt : 0;
      if (finishReason !== "cancelled") become("done", finishReason === "length" ? "cut at the limit" : "done");
      else become("stopped", stopped ? `${stopped.toFixed(stopped < 10 ? 1 : 0)} ms` : "");
    } catch (error) {
      const { code, message } = /** @type {import("../client.js").GatewayError} */ (error);
      run = null;
      wrong = message;
      become("failed", code ?? message);
      return code === "connection_lost" && !pieces;
    }
    run = null;
    return false;
  }

  function measure() {
    const now = performance.now();
    if (!pieces || now - rateAt < RATE_MS) return; // the wait for the first one is none of its rate
    if (rateAt) rate = (1000 * (pieces - ratePieces)) / (now - rateAt);
    rateAt = now;
    ratePieces = pieces;
  }

  /** Show what has changed, if it is time for it; called at most once a frame. Returns whether it has. */
  function paint() {
    const now = performance.now();
    if (!urgent && now - paintedAt < TEXT_MS) return false;
    urgent = false;
    paintedAt = now;
    if (emptied) {
      text.replaceChildren(make("p", {}, (words = document.createTextNode(""))));
      all = "";
      kept = 0;
    }
    emptied = false;
    if (waiting) append(waiting);
    waiting = "";
    if (root.dataset.state !== state) root.dataset.state = state;
    measure();
    put(said, SAID[state](note, rate));
    if (state !== "writing" || now - countAt > COUNT_MS) {
      put(count, pieces && state !== "stopped" ? `${pieces}` : "");
      countAt = now;
    }
    const width = state === "reading" ? `${Math.round(100 * read)}%` : "0";
    if (bar.style.width !== width) bar.style.width = width;
    if (state === "reading") bar.style.setProperty("--cached", `${read ? Math.round((100 * cached) / read) : 0}%`);
    const verb = hooks.still ? "" : run ? "Stop " : "Start ";
    const label = `${verb}${title}, ${LABELS[state]}`;
    if (act.ariaLabel !== label) act.ariaLabel = label;
    const hint = run ? "" : wrong || all;
    if (act.title !== hint) act.title = hint;
    return true;
  }

  const self = {
    root,
    /** What covers the tile, and has the focus. */
    act,
    paint,
    /**
     * Fill the tile from a run, until it ends; the one before must have ended. Resolves to whether it was lost before
     * it had begun.
     * @param {Run} next
     */
    follow(next) {
      const end = fill(next);
      over = end;
      return end;
    },
    /** Stop the story. Resolves when it has ended. */
    stop() {
      if (!run) return over;
      stopAt = performance.now();
      isSlow = false;
      run.cancel();
      hurry();
      return over;
    },
    /** Read slowly from now on, or fast again. @param {boolean} [slow] */
    slow(slow = !isSlow) {
      if (!run) return;
      isSlow = slow;
      if (state === "writing" || state === "slow") writing();
      if (!slow) hurry();
    },
    /** Say that the connection is gone. */
    cut() {
      if (LIVE.has(state)) become("cut");
    },
    get state() {
      return state;
    },
    get pieces() {
      return pieces;
    },
    /** What its failure says, if it has failed. */
    get wrong() {
      return wrong;
    },
    /** The tokens of its prompt, and how many of them the gateway had read before. */
    get prompt() {
      return [promptTokens, cachedTokens];
    },
    /** From the click on it to its end, in milliseconds; 0 while it is not known. */
    get stopped() {
      return stopped;
    },
    /** Pieces of text a second, lately; 0 while it is not known. */
    get rate() {
      return rate;
    },
  };
  paint();
  return self;
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What the foot of a tile says. @type {Record<State, (note: string, rate: number) => string>} */
const SAID = {
  idle: () => "",
  queued: (place) => (place ? `queue ${place}` : "asked"),
  loading: (part) => `loading ${part}`,
  reading: () => "reading",
  writing: (_, rate) => (rate ? `${Math.round(rate)} tok/s` : "…"),
  slow: () => "slow reader",
  cut: () => "no connection",
  done: (how, rate) => (rate && how === "done" ? `${Math.round(rate)} tok/s` : how),
  stopped: (after) => (after ? `stopped in ${after}` : "stopped"),
  failed: (code) => code,
};

/** @type {Record<State, string>} */
const LABELS = {
  idle: "not begun",
  queued: "in the queue",
  loading: "the model is being loaded",
  reading: "its prompt is being read",
  writing: "being written",
  slow: "being written for a slow reader",
  cut: "without a connection",
  done: "done",
  stopped: "stopped",
  failed: "failed",
};
