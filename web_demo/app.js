// @ts-check
/** The demo page: one connection, one or two conversations, on client.js's public interface. */

import { ConnectionLostError, connect } from "./client.js";

const EXAMPLES = [
  "Tell me a story about a lighthouse keeper",
  "Count from 3 to 40",
  "What is this gateway?",
  "Tell me a story about a fox named Zorvan",
  "How do I stop a generation?",
];
const NOT_AUTHENTICATED = 4401;
const STATES = {
  connecting: "connecting",
  open: "connected",
  waiting: "connection lost, trying again",
  closed: "disconnected",
};

/** @param {string} selector @param {ParentNode} [inside] */
const find = (selector, inside = document) =>
  /** @type {any} */ (inside.querySelector(selector));

const token = takeToken();
const client = connect(undefined, { onstate: showState, ...(token ? { token } : {}) });
const panes = [addPane()];
showReady();
find("#split").addEventListener("click", toggleSplit);
find("#temperature").addEventListener("input", showTemperature);
find("#door form").addEventListener("submit", useToken);
document.addEventListener("keydown", onKey);
panes[0].focus();

/** The token of this tab: out of the address, which forgets it, or what was typed in before. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("token");
}

/** @param {Event} event */
function useToken(event) {
  event.preventDefault();
  sessionStorage.setItem("token", find("#token").value.trim());
  location.reload();
}

/** @param {import("./client.js").ConnectionState} state @param {number} [closeCode] */
function showState(state, closeCode) {
  const shown = find("#state");
  shown.textContent = STATES[state];
  shown.dataset.state = state;
  if (state === "open") showReady();
  if (closeCode === NOT_AUTHENTICATED) askForToken();
}

function askForToken() {
  find("#state").textContent = "locked";
  find("#door-reason").textContent = token
    ? "This token will not do. It may have expired."
    : "This gateway lets in who has a token.";
  find("#door").showModal();
}

async function showReady() {
  try {
    find("#model").textContent = (await client.ready).models.join(", ");
  } catch {
    // said by the state already
  }
}

function showTemperature() {
  find("#temperature-shown").textContent = Number(find("#temperature").value).toFixed(1);
}

function toggleSplit() {
  const button = find("#split");
  if (panes.length === 1) panes.push(addPane());
  else panes.pop()?.remove();
  button.setAttribute("aria-pressed", String(panes.length === 2));
  find("#panes").classList.toggle("two", panes.length === 2);
  panes[panes.length - 1].focus();
}

/** Esc stops the answer where the focus is, or else every one. @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key !== "Escape" || find("#settings").matches(":popover-open")) return;
  const focused = panes.filter((pane) => pane.hasFocus() && pane.running());
  for (const pane of focused.length ? focused : panes) pane.stop();
}

/** What the settings say, as options of a generation. */
function settings() {
  const seed = find("#seed").value;
  const system = find("#system").value.trim();
  return {
    temperature: Number(find("#temperature").value),
    max_tokens: Math.max(1, Number(find("#max-tokens").value) || 1024),
    ...(seed === "" ? {} : { seed: Number(seed) }),
    ...(system ? { system_prompt: system } : {}),
    ...(find("#thinking").checked ? { enable_thinking: true } : {}),
  };
}

/** One conversation. */
function addPane() {
  const root = find("#pane").content.firstElementChild.cloneNode(true);
  const scroll = find(".scroll", root);
  const turns = find(".turns", root);
  const input = find("textarea", root);
  const sendButton = find(".send", root);
  const stopButton = find(".stop", root);
  /** @type {{role: string, content: string}[]} */
  let messages = [];
  /** @type {ReturnType<typeof client.generate> | null} */
  let run = null;
  let stopped = false;

  for (const example of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example;
    button.addEventListener("click", () => send(example));
    const item = document.createElement("li");
    item.append(button);
    find(".examples", root).append(item);
  }
  find("form", root).addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    send(input.value);
  });
  input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(input.value);
    }
  });
  input.addEventListener("input", fitInput);
  stopButton.addEventListener("click", stop);
  find("#panes").append(root);

  function fitInput() {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + 2}px`;
  }

  /** @param {string} text */
  async function send(text) {
    if (run || !text.trim()) return;
    find(".empty", root).hidden = true;
    input.value = "";
    fitInput();
    const question = document.createElement("li");
    question.className = "turn user";
    question.textContent = text;
    turns.append(question);
    const answer = addAnswer(turns, scroll);
    const asked = [...messages, { role: "user", content: text }];
    run = client.generate({ messages: asked, ...settings(), onprogress: answer.progress });
    show(true);
    let said = "";
    stopped = false;
    try {
      for await (const chunk of run) answer.add(chunk);
      const result = await run.result;
      said = result.text;
      answer.finish(result, stopped);
    } catch (error) {
      said = run.text;
      answer.fail(/** @type {Error} */ (error), said);
    }
    // What was shown is what the next turn refers to; a turn that never was asked is forgotten.
    if (said) messages = [...asked, { role: "assistant", content: said }];
    run = null;
    show(false);
  }

  /** @param {boolean} busy */
  function show(busy) {
    const hadFocus = root.contains(document.activeElement);
    sendButton.hidden = busy;
    stopButton.hidden = !busy;
    if (hadFocus) input.focus();
  }

  function stop() {
    stopped = true;
    run?.cancel();
  }

  return {
    stop,
    running: () => run !== null,
    focus: () => input.focus(),
    hasFocus: () => root.contains(document.activeElement),
    remove() {
      stop();
      root.remove();
    },
  };
}

/**
 * One answer as it comes.
 * @param {HTMLElement} turns
 * @param {HTMLElement} scroll
 */
function addAnswer(turns, scroll) {
  const root = find("#answer").content.firstElementChild.cloneNode(true);
  const text = find(".text", root);
  const reasoning = find(".reasoning", root);
  const figures = find(".figures", root);
  const note = find(".note", root);
  const begin = performance.now();
  let firstAt = 0;
  let pieces = 0;
  let frame = 0;
  let waiting = "";
  let thought = "";
  root.classList.add("streaming");
  turns.append(root);
  scroll.scrollTop = scroll.scrollHeight;

  /** Changes the page at most once a frame, however fast the chunks come. */
  function paint() {
    frame = 0;
    const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
    if (waiting) text.append(waiting);
    if (thought) find("div", reasoning).append(thought);
    waiting = thought = "";
    if (atEnd) scroll.scrollTop = scroll.scrollHeight; // who has scrolled up is left in peace
  }

  function schedule() {
    if (!frame) frame = requestAnimationFrame(paint);
  }

  function showLive() {
    const seconds = (performance.now() - firstAt) / 1000;
    const rate = pieces > 1 && seconds > 0 ? `${Math.round((pieces - 1) / seconds)} tokens/s` : "…";
    figures.textContent = `${rate} · first after ${Math.round(firstAt - begin)} ms`;
  }

  function settle() {
    cancelAnimationFrame(frame);
    paint();
    root.classList.remove("streaming");
  }

  return {
    /** @param {import("./client.js").Progress} progress */
    progress(progress) {
      if (firstAt) return;
      if ("queued" in progress) figures.textContent = `number ${progress.queued} in the queue`;
      else if ("done" in progress && progress.total > 64)
        figures.textContent = `reading the prompt: ${progress.done} of ${progress.total} tokens`;
    },
    /** @param {import("./client.js").Chunk} chunk */
    add(chunk) {
      firstAt ||= performance.now();
      pieces += 1;
      if (chunk.channel === "reasoning") {
        reasoning.hidden = false;
        reasoning.open = true;
        thought += chunk.text;
      } else waiting += chunk.text;
      showLive();
      schedule();
    },
    /** @param {import("./client.js").Result} result @param {boolean} stopped */
    finish(result, stopped) {
      settle();
      for (const call of result.toolCalls) text.append(`${call.name}(${call.arguments})`);
      const tokens = result.usage.completion_tokens ?? pieces;
      const rate = result.timing.tokens_per_second;
      const parts = [`${tokens} tokens`];
      if (result.finishReason === "cancelled") parts[0] = `stopped by ${stopped ? "you" : "the gateway"} after ${tokens} tokens`;
      if (result.finishReason === "length") parts[0] = `cut off at ${tokens} tokens`;
      if (rate) parts.push(`${Math.round(rate)} tokens/s`);
      if (firstAt) parts.push(`first after ${Math.round(firstAt - begin)} ms`);
      figures.textContent = parts.join(" · ");
    },
    /** @param {Error} error @param {string} soFar */
    fail(error, soFar) {
      settle();
      const lost = error instanceof ConnectionLostError;
      const kept = soFar ? " What came so far is kept." : "";
      note.hidden = false;
      note.textContent = lost ? `The connection to the gateway was lost.${kept}` : error.message;
      figures.textContent = pieces ? `${pieces} tokens` : "";
      scroll.scrollTop = scroll.scrollHeight;
    },
  };
}
