// @ts-check
/** One conversation: the input, the turns, and the runs that write them. */

import { bytesOf, contentOf, createAttachments } from "./attachments.js";
import { copyOf, find } from "../shell/dom.js";
import { chosen } from "../settings/settings.js";
import { textOf } from "../store/tree.js";
import { runTools } from "../tool_loop.js";
import { answeredBy } from "../tools/tools.js";
import { createTalk } from "./talk.js";
import { createThread } from "./thread.js";

const EXAMPLES = [
  "Tell me a story about a lighthouse keeper",
  "Count from 3 to 40",
  "What is this gateway?",
  "Tell me a story about a fox named Zorvan",
  "How do I stop a generation?",
];
/** Bytes of a frame that are left for everything but the messages: options, tools, a schema. */
const RESERVED_BYTES = 64 * 1024;
const SAVE_MS = 1000; // between two times that an answer is kept while it is written
const DRAFT_MS = 400; // after the last key

/** @typedef {import("../client.js").Message} Message */
/** @typedef {import("../client.js").Run | import("../tool_loop.js").ToolRun} Run */
/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {{turn: Turn, run: Run, answer: Answer, stopped: boolean}} Live an answer that is being written */

/**
 * Add a conversation to the page.
 * @param {import("../shell/app.js").App} app
 * @param {HTMLElement} row where it goes
 * @param {import("../store/database.js").Store} store
 * @param {{changed: () => void, moved: (id: string | null) => void}} hooks `moved` is called when another
 *   conversation is shown, or a new one has got its id
 */
export function createPane(app, row, store, hooks) {
  const { client } = app;
  const root = copyOf("#pane");
  const scroll = find(".scroll", root);
  const form = find(".ask", root);
  const input = find("textarea", form);
  const queued = find(".queued", root);
  const attachments = createAttachments(root, form, room);
  const talk = createTalk(store, hooks.changed, (error) => attachments.say(notKept(error)));
  const thread = createThread(find(".turns", root), scroll, {
    edit: (turn, text) => edit(turn, text),
    regenerate: (turn) => regenerate(turn),
    goOn: (turn) => goOn(turn),
    choose(turn) {
      talk.choose(turn);
      showPath();
    },
    versions: talk.siblings,
    answerOf: (turn) => live.get(turn.id)?.answer ?? null,
  });
  /** Answers that are being written, by the ids of their turns. @type {Map<string, Live>} */
  const live = new Map();
  let busy = false;
  let next = ""; // the message that waits for the running answer
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let drafting;

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
  input.addEventListener("input", () => {
    fitInput();
    clearTimeout(drafting);
    drafting = setTimeout(keepDraft, DRAFT_MS);
  });
  find(".stop", root).addEventListener("click", stop);
  find("button", queued).addEventListener("click", () => takeBack());
  const latest = find(".latest", root);
  latest.addEventListener("click", () => scroll.scrollTo({ top: scroll.scrollHeight }));
  scroll.addEventListener("scroll", showLatest, { passive: true });
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

  function showLatest() {
    latest.hidden = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 160;
  }

  const draftKey = () => `draft ${talk.id ?? "new"}`;

  function keepDraft() {
    store.keep(draftKey(), input.value || undefined);
  }

  async function takeDraft() {
    const draft = await store.value(draftKey());
    if (draft && !input.value) {
      input.value = draft;
      fitInput();
    }
  }

  /** The answer that is being written at the end of the shown turns. */
  function current() {
    const last = talk.path().at(-1);
    return last && live.get(last.id);
  }

  /** Return by how many bytes the conversation may grow; each request contains all of it. */
  function room() {
    const most = app.ready?.limits.max_frame_bytes ?? Infinity;
    return most - RESERVED_BYTES - bytesOf(talk.messages(talk.path().at(-1)?.id ?? null));
  }

  /** @param {string} text */
  async function send(text) {
    if (current() && text.trim()) {
      next = next ? `${next}\n${text}` : text;
      find("span", queued).textContent = next;
      queued.hidden = false;
      clearInput();
      return;
    }
    if (busy || current()) return;
    busy = true;
    try {
      await attachments.read();
      await ask(text);
    } finally {
      busy = false;
    }
  }

  function clearInput() {
    input.value = "";
    fitInput();
    clearTimeout(drafting);
    keepDraft();
  }

  /** Put the message that waits back into the input. */
  function takeBack() {
    if (!next) return;
    input.value = input.value ? `${next}\n${input.value}` : next;
    next = "";
    queued.hidden = true;
    fitInput();
    input.focus();
  }

  /** @param {string} text */
  async function ask(text) {
    if (!text.trim() && !attachments.any()) return;
    const settings = await chosen();
    if (!settings) return;
    const content = contentOf(attachments.waiting(), text);
    settle();
    if (bytesOf({ role: "user", content }) > room()) {
      attachments.say(new Error("With this message, the conversation is larger than the gateway allows."));
      return;
    }
    const isNew = talk.id === null;
    const parent = talk.path().at(-1)?.id ?? null;
    const views = attachments.waiting().map(({ view }) => view);
    clearInput();
    const question = talk.add({ role: "user", content, parent }, text || attachments.waiting()[0].name);
    attachments.clear();
    thread.addQuestion(question, views);
    if (isNew) hooks.moved(talk.id);
    begin(question.id, settings);
  }

  /** Keep the chosen one of several answers, because the conversation goes on. */
  function settle() {
    const last = talk.path().at(-1);
    if (last?.role !== "assistant") return;
    const answer = thread.answerOf(last);
    if (answer && !last.messages && answer.kept() !== last.content) talk.change(last, { content: answer.kept() });
    answer?.close();
  }

  /** @typedef {NonNullable<Awaited<ReturnType<typeof chosen>>>} Settings */

  /**
   * Begin an answer below a turn.
   * @param {string | null} parent @param {Settings} settings
   */
  function begin(parent, { options, tools }) {
    const messages = talk.messages(parent);
    const { n, logprobs, response_format } = options;
    const shape = JSON.parse(JSON.stringify({ n, logprobs, response_format }));
    const turn = talk.add({ role: "assistant", content: "", parent, options: shape });
    const answer = thread.addRunning(turn, options);
    const request = { ...options, messages, ...hooksOf(turn, answer) };
    const run = tools.length
      ? runTools(client, { ...request, tools: answeredBy(tools, asking(answer)), onresult: answer.returned })
      : client.generate({ ...request, keep_on_close: true });
    follow({ turn, run, answer, stopped: false }, "");
  }

  /** @param {Turn} turn @param {Answer} answer */
  function hooksOf(turn, answer) {
    return {
      oncall: answer.call,
      onprogress(/** @type {import("../client.js").Progress} */ progress) {
        answer.progress(progress);
        const run = live.get(turn.id)?.run;
        if ("started" in progress && run && "ticket" in run)
          talk.change(turn, { ticket: run.ticket, model: progress.started.model });
      },
    };
  }

  /**
   * Show and keep an answer while it is received, until it ends.
   * @param {Live} one
   * @param {string} before what the answer continues
   */
  async function follow(one, before) {
    const { turn, run, answer } = one;
    live.set(turn.id, one);
    showRunning();
    let kept = performance.now();
    /** @type {Partial<Turn>} */
    let end;
    try {
      for await (const chunk of run) {
        answer.add(chunk);
        if (performance.now() - kept < SAVE_MS) continue;
        kept = performance.now();
        talk.change(turn, { content: answer.kept() });
      }
      const result = await run.result;
      answer.finish(result, one.stopped);
      const messages = "messages" in result && result.messages.length > 1 ? { messages: result.messages } : {};
      const reasoning = result.reasoning ? { reasoning: result.reasoning } : {};
      end = { ended: result.finishReason, model: result.model, ...reasoning, ...messages };
    } catch (error) {
      const { code = "internal", message } = /** @type {import("../client.js").GatewayError} */ (error);
      answer.fail(/** @type {Error} */ (error), () => regenerate(turn));
      end = { ended: "error", error: { code, message } };
    }
    live.delete(turn.id);
    talk.change(turn, { content: answer.kept() || before, figures: answer.figures(), ticket: null, ...end });
    thread.renew(turn);
    showRunning();
    if (turn.conversation === talk.id) goToNext(one.stopped || end.ended === "error");
  }

  /** Send the message that waits, or give it back after a stop or an error. @param {boolean} broken */
  function goToNext(broken) {
    if (!next || current()) return;
    if (broken) return takeBack();
    const text = next;
    next = "";
    queued.hidden = true;
    send(text);
  }

  /** Return what asks a person for the result of a call. @param {Answer} answer */
  function asking(answer) {
    return async (/** @type {import("../client.js").ToolCall} */ call, /** @type {AbortSignal} */ signal) => {
      try {
        return await answer.ask(call, signal, !input.value); // the focus stays while a message is typed
      } finally {
        if (document.activeElement?.closest(".call")) input.focus();
      }
    };
  }

  /** Answer a question once more; both answers stay. @param {Turn} turn */
  async function regenerate(turn) {
    if (current()) return;
    const settings = await chosen();
    if (!settings) return;
    settle();
    talk.goBack(turn.parent);
    thread.show(talk.path());
    begin(turn.parent, settings);
    renewAll();
  }

  /** Let the model go on writing an answer that was stopped or cut off. @param {Turn} turn */
  async function goOn(turn) {
    if (current()) return;
    const settings = await chosen();
    if (!settings) return;
    const before = textOf(turn);
    talk.goBack(turn.parent);
    thread.show(talk.path());
    const { n, logprobs, top_logprobs, response_format, ...options } = settings.options;
    const messages = [...talk.messages(turn.parent), { role: /** @type {const} */ ("assistant"), content: before }];
    const made = talk.add({ role: "assistant", content: before, parent: turn.parent, options: { before } });
    const answer = thread.addRunning(made, {});
    answer.begin(before);
    const request = { ...options, messages, continue_final_message: true, ...hooksOf(made, answer) };
    const run = client.generate({ ...request, keep_on_close: true });
    follow({ turn: made, run, answer, stopped: false }, before);
    renewAll();
  }

  /** Ask a changed question; the one before stays beside it. @param {Turn} turn @param {string} text */
  async function edit(turn, text) {
    if (current()) stop();
    const settings = await chosen();
    if (!settings) return;
    const { content } = turn;
    const parts = typeof content === "string" ? [] : content.slice(0, textOf(turn) ? -1 : undefined);
    const said = { type: /** @type {const} */ ("text"), text };
    talk.goBack(turn.parent);
    const changed = parts.length ? [...parts, ...(text ? [said] : [])] : text;
    const question = talk.add({ role: "user", content: changed, parent: turn.parent });
    thread.show(talk.path());
    begin(question.id, settings);
  }

  function renewAll() {
    for (const turn of talk.path()) thread.renew(turn);
  }

  function showPath() {
    const path = talk.path();
    thread.show(path);
    find(".empty", root).hidden = path.length > 0;
    const last = path.at(-1);
    if (last?.ticket && !live.has(last.id)) resume(last);
    showRunning();
  }

  /** Go on with an answer that was being written when the page was left. @param {Turn} turn */
  function resume(turn) {
    const ticket = /** @type {import("../client.js").Ticket} */ (turn.ticket);
    const shown = /** @type {Answer} */ (thread.answerOf(turn));
    const { before = "" } = /** @type {{before?: string}} */ (turn.options ?? {});
    shown.again();
    if (before) shown.begin(before);
    const run = client.resume(ticket, hooksOf(turn, shown));
    follow({ turn, run, answer: shown, stopped: false }, textOf(turn));
  }

  function showRunning() {
    const running = Boolean(current());
    const focused = document.activeElement;
    find(".send", root).hidden = running;
    find(".stop", root).hidden = !running;
    find(".empty", root).hidden = talk.path().length > 0;
    // The focused button may be hidden now.
    if (root.contains(focused) && !focused?.checkVisibility()) input.focus();
  }

  function stop() {
    const one = current();
    if (!one) return;
    one.stopped = true;
    one.run.cancel();
  }

  /** @param {string | null} id */
  async function open(id) {
    takeBack();
    clearTimeout(drafting);
    if (input.value) keepDraft();
    input.value = "";
    const found = id !== null && (await talk.load(id, live));
    if (!found) talk.begin();
    showPath();
    scroll.scrollTop = scroll.scrollHeight;
    fitInput();
    takeDraft();
    return found;
  }

  return {
    stop,
    /** Show a conversation; a new one if there is none with this id. Resolves to whether there was. */
    open,
    id: () => talk.id,
    rename: talk.rename,
    running: () => current() !== undefined,
    focus: () => input.focus(),
    hasFocus: () => root.contains(document.activeElement),
    remove() {
      for (const one of live.values()) {
        one.stopped = true;
        one.run.cancel();
      }
      root.remove();
    },
  };
}

/** @param {Error} error */
const notKept = (error) => new Error(`This browser can't keep the conversation: ${error.message}`);
