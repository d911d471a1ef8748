// @ts-check
/** Goes on with an answer whose page was left; of all pages that show it, one writes it. */

import { textOf } from "../store/tree.js";
import { loadMarks } from "./column.js";

/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("./pane.js").Live} Live */
/**
 * What it needs of the pane.
 * @typedef {{
 *   client: import("../client.js").Client, talk: ReturnType<typeof import("./talk.js").createTalk>, live: Map<string, Live>,
 *   thread: ReturnType<typeof import("./thread.js").createThread>, showPath: () => void,
 *   chosen: (values: import("../settings/values.js").Values) => Promise<import("./pane.js").Settings | null>,
 *   toolRun: (turn: Turn, answer: import("./answer.js").Answer, request: import("./tool_run.js").ToolRequest) => import("./pane.js").Run,
 *   follow: (one: Live, before: string, anew?: () => void, owning?: Promise<(() => void) | null>) => void, goToNext: (broken: boolean) => void,
 * }} Pane
 */

const LEAVING_MS = 1000; // in which a page that is left, or loaded again, gives back what it had

/**
 * Let this page be the one that has something, such as `turn` with an id; resolves to what gives it back, or to null if another
 * page has it for longer than a page takes that is left. Without locks, as in a page without https, no page knows of another.
 * @param {string} name @param {LockOptions} [options] @returns {Promise<(() => void) | null>}
 */
export function own(name, options = { signal: AbortSignal.timeout(LEAVING_MS) }) {
  const { locks } = navigator;
  if (!locks) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    const held = () => new Promise((release) => resolve(() => release(undefined)));
    locks.request(name, options, held).catch(() => resolve(null));
  });
}

/** @param {Turn} turn */
export const lockOf = ({ id }) => `turn ${id}`;

/**
 * Go on with an answer: with what the gateway writes, or by asking for what it had not begun. Where another page writes
 * it, its end is shown, and if that page is left, this one goes on.
 * @param {Turn} turn @param {Pane} pane
 */
export async function goOnWith(turn, pane) {
  const { client, talk, thread, live } = pane;
  const { before = "", logprobs } = /** @type {{before?: string, logprobs?: boolean}} */ (turn.options ?? {});
  const free = await own(lockOf(turn));
  const kept = await talk.kept(turn); // who wrote it may have got further, or to its end
  if (!free || !kept || kept.ended) {
    free?.();
    return watch({ turn, ticket: kept?.ticket }, pane);
  }
  Object.assign(turn, kept);
  const { ticket = null, messages: rounds = [], asked, request } = turn;
  const settings = asked ? await pane.chosen(asked) : null;
  if (logprobs) await loadMarks().catch(() => {}); // it goes on without
  const answer = thread.answerOf(turn);
  if (!answer || live.has(turn.id) || (asked && !settings)) return free();
  answer.start(client.state === "open");
  const messages = talk.messages(turn.parent);
  if (before) messages.push({ role: "assistant", content: before });
  const run = settings
    ? pane.toolRun(turn, answer, { ...settings, messages, rounds, ticket })
    : ticket
      ? client.resume(ticket)
      : client.generate({ ...request, messages, ...(before ? { continue_final_message: true } : {}), keep_on_close: true });
  const anew = () => {
    answer.again();
    answer.rounds(rounds);
    if (before) answer.begin(before);
  };
  if (!ticket) anew();
  pane.follow({ turn, run, answer }, textOf(turn), ticket ? anew : undefined, Promise.resolve(free));
}

/**
 * Let the model write on where an answer was stopped or cut off; both answers stay.
 * @param {Turn} turn @param {import("./pane.js").Settings["options"]} asked @param {Pane} pane
 */
export function writeOn(turn, asked, { client, talk, thread, follow }) {
  const before = textOf(turn);
  talk.goBack(turn.parent);
  thread.show(talk.path());
  const { n, logprobs, top_logprobs, response_format, ...options } = asked;
  const messages = [...talk.messages(turn.parent), { role: /** @type {const} */ ("assistant"), content: before }];
  const made = talk.add({ role: "assistant", content: before, parent: turn.parent, options: { before }, request: JSON.parse(JSON.stringify(options)) });
  const answer = thread.addRunning(made, {});
  answer.start(client.state === "open");
  answer.begin(before);
  const run = client.generate({ ...options, messages, continue_final_message: true, keep_on_close: true });
  follow({ turn: made, run, answer }, before);
  thread.renewAll();
}

/** Show what another page writes, until its end or that page is left; then show what is kept. @param {{turn: Turn, ticket: Turn["ticket"]}} what @param {Pane} pane */
async function watch({ turn, ticket }, { client, talk, thread, live, showPath, goToNext }) {
  if (live.has(turn.id)) return;
  const answer = thread.answerOf(turn);
  const { asked, options } = turn;
  answer?.elsewhere();
  // An answer with calls is of several generations, and of several answers the other page keeps one.
  const read = answer && ticket && !asked && !(/** @type {any} */ (options)?.n > 1) ? client.follow(ticket) : null;
  if (answer && read) showRead(read, turn, answer).catch(() => answer.elsewhere());
  (await own(lockOf(turn), {}))?.();
  read?.cancel();
  if (talk.path().at(-1) !== turn || !(await talk.load(turn.conversation, live))) return;
  showPath();
  const ended = talk.path().at(-1)?.ended;
  if (ended) goToNext(ended === "cancelled" || ended === "error");
}

/**
 * Show an answer that this page only reads; nothing of it is kept.
 * @param {import("../client.js").Run} run @param {Turn} turn @param {import("./answer.js").Answer} answer
 */
async function showRead(run, turn, answer) {
  const { before = "", logprobs } = /** @type {{before?: string, logprobs?: boolean}} */ (turn.options ?? {});
  if (logprobs) await loadMarks().catch(() => {}); // it is shown without
  let shown = false;
  for await (const event of run.events()) {
    if (!answer.root.isConnected) return;
    if (!shown) {
      answer.again();
      answer.start(true);
      answer.elsewhere(true);
      if (before) answer.begin(before);
    }
    shown = true;
    if (event.type === "text" || event.type === "reasoning") answer.add(event);
    else if (event.type === "call") answer.call(event.call, event.delta);
    else if (event.type === "progress") answer.progress(event.progress);
    else if (event.type === "resumed") answer.resumed();
  }
}

/** Show what another page has said in the shown conversation, or says now, unless this page is being answered. @param {Pane} pane */
export async function catchUp({ talk, live, showPath }) {
  const { conversation } = talk;
  const busy = () => talk.conversation !== conversation || live.has(conversation?.leaf ?? "");
  if (!conversation || busy()) return;
  const last = await talk.further();
  if (!last || !(last.ended || (await isHeld(lockOf(last)))) || busy()) return; // what nobody has is not ours to go on with
  if (await talk.load(conversation.id, live)) showPath();
}

/** @param {string} name */
const isHeld = async (name) => (await navigator.locks?.query())?.held?.some((one) => one.name === name);
