// @ts-check
/** One conversation: the input, the turns, and the runs that write them. */

import { bytesOf, contentOf, createAttachments } from "./attachments.js";
import { loadMarks } from "./column.js";
import { composes, copyOf, find } from "../shell/dom.js";
import { say } from "../shell/speaker.js";
import { textOf } from "../store/tree.js";
import { answeredBy } from "../tools/tools.js";
import { createWelcome, setBy } from "./cards.js";
import { showChanged } from "./chips.js";
import { showContext } from "./context.js";
import { createTalk } from "./talk.js";
import { createFollower } from "./follow.js";
import { createThread } from "./thread.js";

const EXAMPLES = ["What is this gateway?", "Count from 3 to 40", "Write a haiku about rain", "Tell me a joke"];
/** Bytes of a frame that are left for everything but the messages: options, tools, a schema. */
const RESERVED_BYTES = 64 * 1024;
const SAVE_MS = 3000; // between two times that an answer is kept while it is written; a reload has it from the gateway
const DRAFT_MS = 400; // after the last key
/** @type {Message} */
const NOTHING = { text: "", files: [] };

/** @typedef {import("../client.js").Run | ReturnType<typeof import("./tool_run.js").createToolRun>} Run */
/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {{turn: Turn, run: Run, answer: Answer}} Live an answer that is being written */
/** @typedef {{text: string, files: import("./attachments.js").Attachment[]}} Message */
/** @typedef {NonNullable<Awaited<ReturnType<import("../settings/state.js").Settings["chosen"]>>>} Settings */

/**
 * Add a conversation to the page.
 * @param {import("../shell/app.js").App} app
 * @param {HTMLElement} row where it goes
 * @param {import("../store/database.js").Store} store
 * @param {{changed: () => void, moved: (id: string | null) => void}} hooks `moved` is called when another
 *   conversation is shown, or a new one has got its id
 */
export function createPane(app, row, store, hooks) {
  const { client, settings: all } = app;
  const root = copyOf("#pane");
  const scroll = find(".scroll", root);
  const form = find(".ask", root);
  const input = find("textarea", form);
  const queued = find(".queued", root);
  const attachments = createAttachments(root, form, room, () => all.offer.model?.vision === false);
  const talk = createTalk(store, hooks.changed, (error) => attachments.say(notKept(error)));
  const latest = find(".latest", root);
  const follower = createFollower(scroll, (far) => (latest.hidden = !far), () => talk.path().length > 0);
  const thread = createThread(find(".turns", root), follower, {
    edit,
    regenerate: (turn) => regenerate(turn),
    goOn: (turn) => goOn(turn),
    choose(turn) {
      talk.choose(turn);
      showPath();
    },
    share: async (turn, close) => {
      const question = talk.path().find(({ id }) => id === turn.parent) ?? null;
      return (await import("./panels.js")).sharePanel(turn, question, close);
    },
    code: async (turn, close) => {
      const request = turn.request ?? (await chosen())?.options;
      return (await import("./panels.js")).codePanel({ ...request, messages: talk.messages(turn.parent) }, close);
    },
    versions: talk.siblings,
    focus,
    answerOf: (turn) => live.get(turn.id)?.answer ?? null,
  });
  /** Answers that are being written, by the ids of their turns. @type {Map<string, Live>} */
  const live = new Map();
  /** What runs answers with tools, once it has been needed. @type {typeof import("./tool_run.js")} */
  let toolRuns;

  /**
   * Return what is asked for, with what it needs of the page loaded; null if it can't be asked for.
   * @param {import("../settings/state.js").Values} [values]
   */
  async function chosen(values) {
    const settings = await all.chosen(values);
    try {
      if (settings?.tools.length) toolRuns ??= await import("./tool_run.js");
      if (settings?.options.logprobs) await loadMarks();
      return settings;
    } catch {
      return missing();
    }
  }

  /** Say that a part of the page is not there. */
  function missing() {
    attachments.say(new Error("What this needs of the page can't be loaded now. Try again once the gateway is there."));
    return null;
  }

  const itself = { client, talk, thread, live, showPath, chosen, toolRun, follow, goToNext };
  let busy = false;
  let cutAfter = 0; // pieces of the next answer after which the connection is cut
  /** The message that waits for the running answer; it is empty while none does. @type {Message} */
  let next = NOTHING;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let drafting;

  createWelcome(find(".empty", root), app, play);
  find(".examples", root).append(...EXAMPLES.map(exampleOf));
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  });
  input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !composes(event)) {
      event.preventDefault();
      submit();
    }
    if (event.key === "ArrowUp" && !input.value && !current()) {
      const last = talk.path().findLast(({ role }) => role === "user");
      if (last) event.preventDefault();
      if (last) thread.edit(last);
    }
  });
  input.addEventListener("input", () => {
    fitInput();
    clearTimeout(drafting);
    drafting = setTimeout(() => keepDraft(), DRAFT_MS);
  });
  find(".stop", root).addEventListener("click", stop);
  find("button", queued).addEventListener("click", takeBack);
  latest.addEventListener("click", follower.toEnd);
  row.append(root);
  client.events.addEventListener("state", showConnection);
  for (const events of [all.events, app.models.events]) events.addEventListener("change", showAround);
  showAround();
  store.watch(() => void goingOn().then((all) => all.catchUp(itself)).catch(() => {})); // the next change tries again

  /** @param {string} text */
  function exampleOf(text) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => send({ ...NOTHING, text }));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  function fitInput() {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
    measure();
  }

  /** Show what stands around the input: the settings that are changed, and the use of the context. */
  function showAround() {
    if (all.values.sureness) loadMarks().catch(() => {}); // an answer that needs it tries again
    showChanged(find(".changed", root), app);
    measure();
  }

  /** Let a person write; on a phone, that would bring up the keyboard unasked. */
  function focus() {
    if (!matchMedia("(pointer: coarse)").matches) input.focus();
  }

  function measure() {
    showContext(find(".context", root), talk.path(), input.value, all.offer.model?.context_window ?? null);
  }

  /** Keep what is not sent yet. @param {string} [text] @param {Message} [waits] */
  function keepDraft(text = input.value, waits = next) {
    const { id } = talk;
    drafts().then((all) => all.keep(store, id, text, waits)).catch(() => {}); // the next change tries again
  }

  async function takeDraft() {
    const { id } = talk;
    const wanted = () => talk.id === id && !input.value && queued.hidden;
    const kept = await store.value("drafts");
    const draft = kept?.some((/** @type {{talk: string | null}} */ one) => one.talk === id) && (await (await drafts()).take(store, id, wanted));
    if (!draft) return;
    input.value = draft.text;
    fitInput();
    setNext(draft.waits);
    if (!goesOn(talk.path().at(-1))) takeBack();
  }

  /** The answer that is being written at the end of the shown turns. */
  function current() {
    const last = talk.path().at(-1);
    return last && live.get(last.id);
  }

  /** Return by how many bytes the conversation may grow; each request contains all of it. */
  function room() {
    const most = app.ready?.limits.max_frame_bytes ?? Infinity;
    return most - RESERVED_BYTES - talk.bytes();
  }

  /** Set a feature up, and try it. @param {import("./cards.js").Card} card */
  async function play(card) {
    if (current()) stop();
    if (talk.path().length) await open(null);
    all.change(setBy(card));
    cutAfter = card.cut ?? 0;
    await send({ ...NOTHING, text: card.ask ?? "" });
    const tip = find(".tip", root);
    tip.textContent = card.tip ?? "";
    tip.hidden = !card.tip;
    focus();
  }

  /** Send what the composer holds; it holds that until it is taken. */
  async function submit() {
    await attachments.read();
    const text = input.value;
    send({ text, files: attachments.waiting() }, () => {
      attachments.clear();
      if (input.value === text) input.value = "";
      fitInput();
    });
  }

  /** Send a message now or after the running answer; resolves to whether. @param {Message} message @param {() => void} [taken] */
  async function send(message, taken = () => {}) {
    const { text, files } = message;
    if (busy || !(text.trim() || files.length)) return false;
    if (current()) {
      taken();
      setNext({ text: next.text ? `${next.text}\n${text}` : text, files: [...next.files, ...files] });
      keepDraft();
      return true;
    }
    busy = true;
    return ask(message, taken).finally(() => (busy = false));
  }

  /** @param {Message} message */
  function setNext(message) {
    next = message;
    const names = next.files.map(({ name }) => name).join(", ");
    find("span", queued).textContent = names ? `${next.text} (${names})` : next.text;
    queued.hidden = !next.text && !names;
  }

  /** Put the message that waits back into the input. */
  function takeBack() {
    if (queued.hidden) return;
    input.value = [next.text, input.value].filter(Boolean).join("\n");
    next.files.forEach(attachments.put);
    setNext(NOTHING);
    keepDraft();
    fitInput();
    input.focus();
  }

  /** @param {Message} message @param {() => void} taken */
  async function ask({ text, files }, taken) {
    const settings = await chosen();
    if (!settings) return false;
    const content = contentOf(files, text);
    settle();
    if (bytesOf({ role: "user", content }) > room()) {
      attachments.say(new Error("With this message, the conversation is larger than the gateway allows."));
      return false;
    }
    const isNew = talk.id === null;
    const parent = talk.path().at(-1)?.id ?? null;
    if (isNew) keepDraft("", NOTHING);
    const question = talk.add({ role: "user", content, parent }, text || files[0].name);
    taken();
    keepDraft();
    thread.addQuestion(question, files.map(({ view }) => view));
    if (isNew) hooks.moved(talk.id);
    begin(question.id, settings);
    return true;
  }

  /** End the choice between several answers, because the conversation goes on. */
  function settle() {
    const last = talk.path().at(-1);
    if (last) thread.answerOf(last)?.close();
  }

  /**
   * Begin an answer below a turn.
   * @param {string | null} parent @param {Settings} settings
   */
  function begin(parent, { options, tools, values }) {
    const messages = talk.messages(parent);
    const { n, logprobs, response_format } = options;
    const shape = JSON.parse(JSON.stringify({ n, logprobs, response_format }));
    const request = JSON.parse(JSON.stringify({ ...options, ...(tools.length ? { tools } : {}) })); // without functions
    const turn = talk.add({ role: "assistant", content: "", parent, options: shape, request, ...(tools.length ? { asked: values } : {}) });
    const answer = thread.addRunning(turn, options);
    answer.start(client.state === "open");
    thread.shorten();
    const run = tools.length
      ? toolRun(turn, answer, { options, messages, tools })
      : client.generate({ ...options, messages, keep_on_close: true });
    follow({ turn, run, answer }, "");
  }

  /** @param {Turn} turn @param {Answer} answer @param {import("./tool_run.js").ToolRequest} request */
  function toolRun(turn, answer, { tools, ...request }) {
    return toolRuns.createToolRun(client, {
      ...request,
      tools: answeredBy(tools, asking(answer)),
      onresult: answer.returned,
      onrounds: (rounds) => talk.change(turn, { messages: rounds, ticket: null, content: answer.kept() }),
    });
  }

  /**
   * Show and keep an answer while it is received, until it ends.
   * @param {Live} one
   * @param {string} before what the answer continues
   * @param {() => void} [anew] called before the first part of the answer is shown
   * @param {Promise<(() => void) | null>} [owning] how the turn is given back, which this page alone writes
   */
  async function follow(one, before, anew, owning = goingOn().then(({ own, lockOf }) => own(lockOf(one.turn))).catch(() => null)) {
    const { turn, run, answer } = one;
    live.set(turn.id, one);
    answer.root.onchange = () => live.has(turn.id) || turn.messages || talk.change(turn, keptOf(answer)); // another was chosen
    showRunning();
    let keptAt = performance.now();
    let heard = "";
    /** @type {Partial<Turn>} */
    let end;
    try {
      for await (const event of run.events()) {
        if (event.type !== "progress" && event.type !== "resumed") {
          anew?.();
          anew = undefined;
        }
        heard = event.type;
        take(one, event);
        if (performance.now() - keptAt < SAVE_MS) continue;
        keptAt = performance.now();
        talk.change(turn, { content: answer.kept() });
      }
      const result = await run.result;
      answer.finish(result);
      end = endOf(result, answer);
    } catch (error) {
      const { code = "internal", message } = /** @type {import("../client.js").GatewayError} */ (error);
      if (code === "not_resumable" && heard !== "resumed") return lose(one); // another page has taken it over
      answer.fail(/** @type {Error} */ (error), () => regenerate(turn));
      end = { ended: "error", error: { code, message } };
    } finally {
      live.delete(turn.id);
    }
    cutAfter = 0;
    find(".tip", root).hidden = true;
    const kept = keptOf(answer);
    kept.content ||= before;
    if (end.messages) kept.odds = undefined; // one text is marked, not those between calls
    const saved = talk.change(turn, { ...kept, figures: answer.figures(), life: answer.life(), ticket: null, ...end });
    Promise.all([owning, saved]).then(([free]) => free?.());
    thread.renew(turn);
    showRunning();
    measure();
    app.models.refresh();
    if (turn.conversation === talk.id) goToNext(turn.ended === "cancelled" || turn.ended === "error");
  }

  /** Leave an answer to another page. @param {Live} one */
  function lose({ turn, answer }) {
    live.delete(turn.id);
    answer.elsewhere();
    takeBack();
    showRunning();
  }

  /** @param {Live} one @param {import("../tool_loop.js").ToolRunEvent | import("../client.js").RunEvent} event */
  function take({ turn, run, answer }, event) {
    switch (event.type) {
      case "text":
      case "reasoning":
        if (cutAfter && --cutAfter === 0) app.cut();
        return answer.add(event);
      case "call":
        return answer.call(event.call, event.delta);
      case "resumed":
        return answer.resumed();
      case "progress":
        answer.progress(event.progress);
        if ("started" in event.progress) talk.change(turn, { ticket: run.ticket, model: event.progress.started.model });
    }
  }

  /** Send the message that waits, or give it back after a stop or an error. @param {boolean} broken */
  async function goToNext(broken) {
    if (queued.hidden || current()) return;
    if (broken || !(await send(next, () => setNext(NOTHING)))) takeBack();
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
    thread.renewAll();
  }

  /** Let the model go on writing an answer that was stopped or cut off. @param {Turn} turn */
  async function goOn(turn) {
    const [settings, all] = await Promise.all([chosen(), goingOn().catch(missing)]);
    if (settings && !current()) all?.writeOn(turn, settings.options, itself);
  }

  /**
   * Ask a changed question; the one before stays beside it.
   * @param {Turn} turn @param {string} text @param {Set<import("../client.js").Part>} without attachments that don't go with it
   */
  async function edit(turn, text, without) {
    if (current()) stop();
    const settings = await chosen();
    if (!settings) return;
    const { content } = turn;
    const before = typeof content === "string" ? [] : content.slice(0, textOf(turn) ? -1 : undefined);
    const parts = before.filter((part) => !without.has(part));
    if (!parts.length && !text.trim()) return;
    const said = { type: /** @type {const} */ ("text"), text };
    talk.goBack(turn.parent);
    const changed = parts.length ? [...parts, ...(text ? [said] : [])] : text;
    const question = talk.add({ role: "user", content: changed, parent: turn.parent });
    thread.show(talk.path());
    begin(question.id, settings);
  }

  function showPath() {
    const path = talk.path();
    thread.show(path);
    showWelcome();
    const last = path.at(-1);
    if (last && goesOn(last) && !live.has(last.id))
      goingOn().then((all) => all.goOnWith(last, itself)).catch(() => {});
    showRunning();
  }

  function showWelcome() {
    const begun = talk.path().length > 0;
    find(".empty", root).hidden = begun;
    root.classList.toggle("new-talk", !begun); // a :has() of what is in it would look at each change of a text
  }

  function showRunning() {
    const running = Boolean(current());
    const focused = document.activeElement;
    find(".send", root).hidden = running;
    find(".stop", root).hidden = !running;
    showWelcome();
    measure();
    // The focused button may be hidden now.
    if (root.contains(focused) && !focused?.checkVisibility()) focus();
  }

  function stop() {
    const one = current();
    if (!one) return;
    one.answer.stopping();
    one.run.cancel();
  }

  /** Stop all answers of a conversation, because it is deleted. @param {string} id */
  function drop(id) {
    for (const { turn, run } of live.values()) if (turn.conversation === id) run.cancel();
  }

  function showConnection() {
    for (const { answer } of live.values()) answer.connection(client.state === "open");
  }

  /** @param {string | null} id */
  async function open(id) {
    clearTimeout(drafting);
    if (input.value || !queued.hidden) keepDraft();
    input.value = "";
    setNext(NOTHING);
    const found = id !== null && (await talk.load(id, live));
    if (!found) talk.begin();
    showPath();
    if (talk.path().length) follower.toEnd();
    else follower.toTop();
    fitInput();
    takeDraft();
    return found;
  }

  /** The turn that has the focus, or the last one of its kind. @param {"user" | "assistant"} role */
  function turnAtHand(role) {
    const path = talk.path().filter((turn) => turn.role === role);
    return path.find((turn) => thread.rootOf(turn)?.contains(document.activeElement)) ?? path.at(-1);
  }

  /** @param {"user" | "assistant"} role @param {(turn: Turn) => void} act */
  const withTurn = (role, act) => () => {
    const turn = turnAtHand(role);
    if (turn) act(turn);
  };

  /** @param {string} button */
  const pressing = (button) => withTurn("assistant", (turn) => thread.press(turn, button));

  /** Go from turn to turn. @param {number} by */
  function walk(by) {
    const path = talk.path();
    const here = path.findIndex((turn) => thread.rootOf(turn)?.contains(document.activeElement));
    const to = here < 0 ? path.length - 1 : Math.max(0, Math.min(path.length - 1, here + by));
    const reached = path.length ? thread.reach(path[to]) : null;
    reached?.focus();
    reached?.scrollIntoView({ block: "nearest" });
  }

  return {
    stop,
    play,
    /** What can be done here by a key. @returns {import("../shell/commands.js").Command[]} */
    commands: () => [
      { id: "stop", label: "Stop the answer", group: "Chat", shown: "Esc", run: stop },
      { id: "message", label: "Write a message", group: "Chat", keys: ["/"], run: () => input.focus() },
      { id: "regenerate", label: "Answer once more", group: "Chat", keys: ["r"], run: withTurn("assistant", regenerate) },
      { id: "edit", label: "Change the question", group: "Chat", keys: ["e"], run: withTurn("user", thread.edit) },
      { id: "copy", label: "Copy the answer", group: "Chat", keys: ["c"], run: pressing(".copy") },
      { id: "hear", label: "Hear the answer, by a screen reader", group: "Chat", keys: ["h"], run: withTurn("assistant", (turn) => say(textOf(turn) || "There is no text.")) },
      { id: "versions", label: "Earlier and later version", group: "Chat", keys: ["[", "]"] },
      { id: "earlier", label: "Earlier version of the answer", group: "Chat", keys: ["["], hidden: true, run: pressing("[aria-label^=E]") },
      { id: "later", label: "Later version of the answer", group: "Chat", keys: ["]"], hidden: true, run: pressing("[aria-label^=L]") },
      { id: "turns", label: "Previous and next message", group: "Chat", keys: ["k", "j"] },
      { id: "previous", label: "Previous message", group: "Chat", keys: ["k"], hidden: true, run: () => walk(-1) },
      { id: "next", label: "Next message", group: "Chat", keys: ["j"], hidden: true, run: () => walk(1) },
      { id: "send", label: "Send; with Shift, a new line", group: "Writing", shown: "Enter" },
      { id: "last", label: "Change the last question, while nothing is written", group: "Writing", shown: "↑" },
    ],
    /** Show a conversation; a new one if there is none with this id. Resolves to whether there was. */
    open,
    id: () => talk.id,
    drop,
    /** Whether an answer of a conversation is being written. @param {string} id */
    runs: (id) => [...live.values()].some(({ turn }) => turn.conversation === id),
    focus,
  };
}

const goingOn = () => import("./going_on.js");
const drafts = () => import("./drafts.js"); // a first visit has none

/** Whether a page goes on with a turn; a model is known once an answer has begun. @param {Turn | undefined} turn */
const goesOn = (turn) => Boolean(turn && !turn.ended && (turn.ticket || turn.asked || (turn.request && !turn.model)));

/** @param {Error} error */
const notKept = (error) => new Error(`This browser can't keep the conversation: ${error.message}`);

/** Return what is kept of the chosen one of several answers. @param {Answer} answer */
const keptOf = (answer) => ({ content: answer.kept(), pace: answer.pace(), odds: answer.odds() });

/**
 * Return what is kept of an answer that has ended.
 * @param {import("../client.js").Result | import("../tool_loop.js").ToolResult} result @param {Answer} answer
 * @returns {Partial<Turn>}
 */
function endOf(result, answer) {
  const { prompt_tokens: read = 0, completion_tokens: written = 0 } = result.usage;
  const kept = Math.round(written / (result.choices?.length || 1));
  return {
    ended: result.finishReason,
    ...(result.model && { model: result.model }),
    ...(read ? { tokens: read + kept } : {}),
    ...(result.reasoning ? { reasoning: result.reasoning, thought: answer.thought() } : {}),
    messages: "messages" in result && result.messages.length > 1 ? result.messages : undefined,
  };
}
