// @ts-check
/** The shown turns of a conversation, with what can be done with each. */

import { copyText, find, make } from "../shell/dom.js";
import { say } from "../shell/speaker.js";
import { textOf } from "../store/tree.js";
import { addAnswer } from "./answer.js";
import { viewsOf } from "./attachments.js";

/** @typedef {import("../store/tree.js").Turn} Turn */
/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("../client.js").Part} Part */
/** Makes a panel that stands below a turn until it is closed. @typedef {(turn: Turn, close: () => void) => Promise<HTMLElement>} Opener */
/** @typedef {{turn: Turn, root: HTMLElement, answer: Answer | null, acts: HTMLElement}} Shown */

/**
 * What a person can do with a turn, and what must be known of it: its versions, and its answer if that is
 * being written. `focus` is called when what had the focus is gone.
 * @typedef {{
 *   edit: (turn: Turn, text: string, without: Set<Part>) => void, regenerate: (turn: Turn) => void, goOn: (turn: Turn) => void,
 *   choose: (turn: Turn) => void, share: Opener, code: Opener, versions: (turn: Turn) => Turn[],
 *   answerOf: (turn: Turn) => Answer | null, focus: () => void,
 * }} Actions
 */

const COPIED_MS = 1500;
const AT_ONCE = 60; // turns that are added above the shown ones
const MOST = 120; // turns that are shown while a conversation grows; a page of more gets slow

/**
 * @param {HTMLElement} list
 * @param {import("./follow.js").Follower} follower
 * @param {Actions} actions
 */
export function createThread(list, follower, actions) {
  /** The end of the path. @type {Shown[]} */
  let shown = [];
  /** Turns above those that are shown. @type {Turn[]} */
  let above = [];
  const more = make("button", { type: "button", class: "quiet earlier", hidden: true, click: () => showEarlier() }, "Earlier messages");
  list.before(more);
  const near = new IntersectionObserver((entries) => {
    if (!entries.at(-1)?.isIntersecting) return;
    showEarlier();
    near.unobserve(more); // so that it is looked at anew, and more are shown if it is still near
    near.observe(more);
  }, { root: list.parentElement, rootMargin: "400px" });
  near.observe(more);

  /** Show the end of a path of turns; those that are shown already stay as they are. @param {readonly Turn[]} path */
  function show(path) {
    const goesOn = shown.length > 0 && path[above.length] === shown[0].turn;
    const first = goesOn ? above.length : Math.max(0, path.length - AT_ONCE);
    let same = 0;
    while (goesOn && same < shown.length && shown[same].turn === path[first + same]) same += 1;
    shown.slice(same).forEach(takeAway);
    shown = shown.slice(0, same);
    hold(path.slice(0, first));
    for (const turn of path.slice(first + same)) add(turn);
    for (const one of shown) offer(one);
  }

  /** @param {Turn[]} turns those that are not shown */
  function hold(turns) {
    above = turns;
    more.hidden = !above.length;
  }

  /** @param {Shown} one */
  function takeAway({ turn, root, answer }) {
    if (!actions.answerOf(turn)) answer?.clear();
    const focused = root.contains(document.activeElement);
    root.remove();
    if (focused) actions.focus();
  }

  /** Add a turn below the others. @param {Turn} turn */
  function add(turn) {
    if (turn.role === "user") addQuestion(turn, viewsOf(turn.content));
    else addAgain(turn);
  }

  /** Show some of the turns above; what is in sight stays where it is. */
  const showEarlier = () => follower.keep(() => {
    const below = shown;
    shown = [];
    above.slice(-AT_ONCE).forEach(add);
    const made = shown;
    list.prepend(...made.map(({ root }) => root));
    shown = [...made, ...below];
    hold(above.slice(0, -AT_ONCE));
    made.forEach(offer);
  });

  function shorten() {
    if (shown.length <= MOST) return;
    const gone = shown.slice(0, -AT_ONCE);
    shown = shown.slice(-AT_ONCE);
    hold([...above, ...gone.map(({ turn }) => turn)]);
    gone.forEach(takeAway);
  }

  /** @param {Turn} turn @param {HTMLElement[]} views what shows its attachments */
  function addQuestion(turn, views) {
    editing().catch(() => {});
    const text = make("div", { class: "turn user" });
    if (views.length) text.append(make("div", { class: "sent" }, ...views));
    text.append(textOf(turn));
    const acts = make("div", { class: "acts" });
    const root = make("li", { class: "asked" }, make("h2", { class: "unseen" }, "You"), text, acts);
    list.append(root);
    const made = { turn, root, answer: null, acts };
    shown.push(made);
    offer(made);
  }

  /** Add an answer that is about to be received. @param {Turn} turn @param {Parameters<typeof addAnswer>[2]} options */
  function addRunning(turn, options) {
    const answer = addAnswer(list, follower, options);
    shown.push({ turn, root: answer.root, answer, acts: answer.acts });
    return answer;
  }

  /** Show an answer that has ended, or goes on in another place. @param {Turn} turn */
  function addAgain(turn) {
    const running = actions.answerOf(turn);
    if (running) {
      list.append(running.root);
      shown.push({ turn, root: running.root, answer: running, acts: running.acts });
    } else addRunning(turn, /** @type {any} */ (turn.options) ?? {}).restore(turn);
  }

  /** Show the buttons of a turn. @param {Shown} one */
  function offer({ turn, acts, root }) {
    if (turn.role === "assistant" && actions.answerOf(turn)) return acts.replaceChildren();
    const buttons = textOf(turn) ? [copyButton(turn)] : [];
    root.tabIndex = -1;
    if (turn.role === "user") buttons.unshift(button("Edit", () => edit(turn, root)));
    else {
      buttons.push(button("Regenerate", () => actions.regenerate(turn)));
      if (turn.ended === "length" || turn.ended === "cancelled" || turn.ended === "error")
        if (textOf(turn) && !turn.messages) buttons.push(button("Continue", () => actions.goOn(turn)));
      if (turn.ended && textOf(turn)) buttons.push(opener("Share", turn, root, actions.share), opener("Code", turn, root, actions.code));
    }
    acts.replaceChildren(...versions(turn), ...buttons);
  }

  /** Return a button that opens a panel below a turn, and closes it. @param {string} label @param {Turn} turn @param {HTMLElement} root @param {Opener} open */
  function opener(label, turn, root, open) {
    const made = button(label, async () => {
      const was = find(":scope > .panel", root);
      was?.remove();
      if (was?.ariaLabel === label) return;
      const panel = await open(turn, () => {
        panel.remove();
        made.focus();
      });
      find(":scope > .panel", root)?.remove(); // of a second click meanwhile
      root.append(panel);
      panel.scrollIntoView({ block: "nearest" });
    });
    return made;
  }

  /** @param {Turn} turn */
  function versions(turn) {
    const all = actions.versions(turn);
    const at = all.indexOf(turn);
    if (all.length < 2) return [];
    const step = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {number} */ to) => {
      const made = button(sign, () => {
        const held = shown.find((one) => one.turn === turn)?.root.contains(document.activeElement);
        actions.choose(all[to]);
        if (!held) return;
        const acts = shown.find((one) => one.turn === all[to])?.acts;
        (find(`[aria-label="${label}"]:enabled`, acts) ?? find("[aria-label$=version]:enabled", acts))?.focus();
      });
      made.ariaLabel = label;
      made.disabled = !all[to];
      return made;
    };
    return [
      step("Earlier version", "◂", at - 1),
      make("span", { class: "version" }, `${at + 1}/${all.length}`),
      step("Later version", "▸", at + 1),
    ];
  }

  /** Let a person change a question. @param {Turn} turn @param {HTMLElement} root */
  async function edit(turn, root) {
    (await editing()).openEdit(turn, root, actions.edit);
  }

  return {
    show,
    addQuestion,
    addRunning,
    /** The element of a turn, null while it isn't shown. @param {Turn} turn */
    rootOf: (turn) => shown.find((one) => one.turn === turn)?.root ?? null,
    /** Let a person change a question. @param {Turn} turn */
    edit(turn) {
      const one = shown.find((other) => other.turn === turn);
      if (one) edit(turn, one.root);
    },
    /** Press one of the buttons of a turn. @param {Turn} turn @param {string} selector */
    press(turn, selector) {
      const one = shown.find((other) => other.turn === turn);
      if (one) find(selector, one.acts)?.click();
    },
    /** @param {Turn} turn */
    answerOf: (turn) => shown.find((one) => one.turn === turn)?.answer ?? null,
    /** Show the buttons of a turn anew, because it has ended or has another version. @param {Turn} turn */
    renew: (turn) => shown.filter((one) => one.turn === turn).forEach(offer),
    renewAll: () => shown.forEach(offer),
    /** Take the first turns away where there are many. */
    shorten,
    /** Return the element of a turn; it is shown, with those between, if it is not yet. @param {Turn} turn */
    reach(turn) {
      while (above.includes(turn)) showEarlier();
      return shown.find((one) => one.turn === turn)?.root ?? null;
    },
  };
}

const editing = () => import("./edit.js"); // a first visit has nothing to change

/** @param {string} label @param {() => void} click */
const button = (label, click) => make("button", { type: "button", class: "quiet", click }, label);

/** @param {Turn} turn */
function copyButton(turn) {
  const made = button("Copy", async () => {
    if (!(await copyText(textOf(turn)))) return;
    made.textContent = "Copied";
    say("Copied.");
    setTimeout(() => (made.textContent = "Copy"), COPIED_MS);
  });
  made.classList.add("copy");
  return made;
}
