// @ts-check
/** One conversation: the input, the turns, and the messages that the next request will contain. */

import { addAnswer } from "./answer.js";
import { bytesOf, contentOf, createAttachments } from "./attachments.js";
import { copyOf, find } from "../shell/dom.js";
import { chosen } from "../settings/settings.js";
import { answeredBy } from "../tools/tools.js";

const EXAMPLES = [
  "Tell me a story about a lighthouse keeper",
  "Count from 3 to 40",
  "What is this gateway?",
  "Tell me a story about a fox named Zorvan",
  "How do I stop a generation?",
];
/** Bytes of a frame that are left for everything but the messages: options, tools, a schema. */
const RESERVED_BYTES = 64 * 1024;

/** @typedef {import("../client.js").Message} Message */
/** @typedef {ReturnType<typeof import("../client.js").connect>} Client */
/** @typedef {ReturnType<Client["generate"]> | ReturnType<Client["runTools"]>} Run */

/**
 * Add a conversation to the page.
 * @param {Client} client
 * @param {HTMLElement} row where it goes
 * @param {() => number} maxFrameBytes the gateway's limit on one frame
 */
export function createPane(client, row, maxFrameBytes) {
  const root = copyOf("#pane");
  const scroll = find(".scroll", root);
  const turns = find(".turns", root);
  const form = find(".ask", root);
  const input = find("textarea", form);
  const attachments = createAttachments(root, form, room);
  /** @type {Message[]} */
  let messages = [];
  /** Returns the newest messages, which are not final: the user may still choose another answer. */
  let newest = () => /** @type {Message[]} */ ([]);
  /** @type {ReturnType<typeof addAnswer> | null} */
  let answer = null;
  /** @type {Run | null} */
  let run = null;
  let busy = false;
  let stopped = false;

  find(".examples", root).append(...EXAMPLES.map(exampleOf));
  form.addEventListener("submit", (/** @type {Event} */ event) => {
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
  find(".stop", root).addEventListener("click", stop);
  row.append(root);

  /** @param {string} text */
  function exampleOf(text) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => send(text));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  function fitInput() {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + 2}px`;
  }

  /** Return by how many bytes the conversation may grow; each request contains all of it. */
  function room() {
    return maxFrameBytes() - RESERVED_BYTES - bytesOf([...messages, ...newest()]);
  }

  /** @param {string} text */
  async function send(text) {
    if (busy) return;
    busy = true;
    try {
      await attachments.read();
      await ask(text);
    } finally {
      busy = false;
    }
  }

  /** @param {string} text */
  async function ask(text) {
    if (!text.trim() && !attachments.any()) return;
    const settings = await chosen();
    if (!settings) return;
    const { options, tools } = settings;
    const question = { role: /** @type {const} */ ("user"), content: contentOf(attachments.waiting(), text) };
    if (bytesOf(question) > room()) {
      attachments.say(new Error("With this message, the conversation is larger than the gateway allows."));
      return;
    }
    messages = [...messages, ...newest()];
    newest = () => [];
    answer?.close();
    showQuestion(text);
    answer = addAnswer(turns, scroll, options);
    run = start([...messages, question], options, tools, answer);
    show(true);
    stopped = false;
    await follow(run, question, answer);
    run = null;
    show(false);
  }

  /**
   * Show an answer while it is received, until it ends.
   * @param {Run} run
   * @param {Message} question
   * @param {ReturnType<typeof addAnswer>} shown
   */
  async function follow(run, question, shown) {
    /** @type {Message[] | undefined} */
    let rounds; // the messages of an answer with tools
    try {
      for await (const chunk of run) shown.add(chunk);
      const result = await run.result;
      if ("messages" in result) rounds = result.messages;
      shown.finish(result, stopped);
    } catch (error) {
      shown.fail(/** @type {Error} */ (error));
    }
    // The next request contains what was shown; a turn without any answer is left out.
    newest = () => {
      const text = shown.kept();
      const added = rounds ?? (text ? [{ role: "assistant", content: text }] : []);
      return added.length ? [question, ...added] : [];
    };
  }

  /**
   * @returns {Run}
   * @param {Message[]} asked
   * @param {import("../client.js").GenerateOptions & {n?: number}} options
   * @param {import("../client.js").Tool[]} tools
   * @param {ReturnType<typeof addAnswer>} shown
   */
  function start(asked, options, tools, shown) {
    const request = { ...options, messages: asked, onprogress: shown.progress, oncall: shown.call };
    return tools.length
      ? client.runTools({ ...request, tools: answeredBy(tools, answerCall), onresult: shown.returned })
      : client.generate(request);
  }

  /** @param {string} text */
  function showQuestion(text) {
    find(".empty", root).hidden = true;
    input.value = "";
    fitInput();
    const question = document.createElement("li");
    question.className = "turn user";
    if (attachments.any()) {
      const sent = document.createElement("div");
      sent.className = "sent";
      sent.append(...attachments.waiting().map(({ view }) => view));
      question.append(sent);
    }
    question.append(text);
    turns.append(question);
    attachments.clear();
  }

  /** @param {boolean} running */
  function show(running) {
    const focused = document.activeElement;
    find(".send", root).hidden = running;
    find(".stop", root).hidden = !running;
    // The focused button may be hidden now.
    if (root.contains(focused) && !focused?.checkVisibility()) input.focus();
  }

  /**
   * Ask the user what a tool returns, without moving the focus while a message is being typed.
   * @param {import("../client.js").ToolCall} call @param {AbortSignal} signal
   */
  async function answerCall(call, signal) {
    const asked = answer?.ask(call, signal, !input.value) ?? "";
    try {
      return await asked;
    } finally {
      if (document.activeElement?.closest(".call")) input.focus();
    }
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
