// @ts-check
/** The room in which one prompt is answered several times at once, each time with other settings. */

import { composes, escapes, find, make } from "../shell/dom.js";
import { say as speak } from "../shell/speaker.js";
import { titleOf } from "../store/tree.js";
import { onlyIn } from "./differences.js";
import { createLane, USUAL } from "./lane.js";
import { rangesOf, textIn } from "./places.js";

const LEAST = 2;
const MOST = 8;
const MOST_UNDONE = 16; // changes that can be undone
const MAX_TOKENS = 1024;
const NAMES = "ABCDEFGH";
const EXAMPLE = "Tell me a story about a fox named Zorvan";
const HIGHLIGHT = "race-difference"; // also in race.css

/** @typedef {import("./lane.js").Lane} Lane */
/** @typedef {import("./lane.js").LaneSettings} LaneSettings */
/** @typedef {{lanes: Lane[], asked: string, said: string}} Moment what was shown before a change, or after one that was undone; `said` tells of it */

/**
 * Settings for all lanes, by one click.
 * @type {{label: string, lanes: (models: string[]) => Partial<LaneSettings>[]}[]}
 */
const SETUPS = [
  { label: "Temperatures", lanes: () => [0, 0.7, 1.3].map((temperature) => ({ temperature, seed: "1" })) },
  { label: "Seeds", lanes: () => ["1", "2", "3", "4"].map((seed) => ({ seed, temperature: 0.9 })) },
  { label: "Thinking", lanes: () => ["no", "yes"].map((thinking) => ({ thinking, temperature: 0 })) },
  { label: "Models", lanes: (models) => models.slice(0, MOST).map((model) => ({ model, temperature: 0 })) },
];

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export async function open(root, app) {
  const { client } = app;
  const parts = layOut(root);
  /** @type {Lane[]} */
  let lanes = [];
  let frame = 0;
  let asked = ""; // the prompt of the answers that are shown
  let begun = 0; // times that all lanes were begun or stopped
  /** @type {Moment[]} */
  let past = [];
  /** @type {Moment[]} */
  let undone = [];

  parts.form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    if (lanes.some(({ live }) => live)) stopAll();
    else start();
  });
  parts.input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
    event.preventDefault();
    if (!lanes.some(({ live }) => live)) start();
  });
  parts.add.addEventListener("click", () => {
    addLane(lanes.at(-1)?.settings() ?? USUAL);
    request();
  });
  parts.marks.addEventListener("change", request);
  document.addEventListener("keydown", (event) => {
    if (!root.hidden && escapes(event)) stopAll();
  });
  client.events.addEventListener("state", () => client.state === "open" && setTimeout(offer));
  parts.setups.append(...SETUPS.map(setupButton));
  setUp(SETUPS[0].lanes([]));
  app.commands.add(() => (root.hidden ? [] : commands()));

  /** @returns {import("../shell/commands.js").Command[]} */
  function commands() {
    return [
      { id: "race-start", label: "Race", group: "Race", shown: "Enter", run: start },
      { id: "race-stop", label: "Stop all lanes", group: "Race", shown: "Esc", run: stopAll },
      { id: "race-lane", label: "Add a lane", group: "Race", keys: ["+"], run: () => parts.add.click() },
      { id: "race-prompt", label: "Go to the prompt", group: "Race", keys: ["/"], run: () => parts.input.focus() },
    ];
  }

  const models = () => app.ready?.models ?? [];

  function offer() {
    for (const lane of lanes) lane.offer();
    const button = parts.setups.lastElementChild;
    if (button instanceof HTMLElement) button.hidden = (app.ready?.models.length ?? 0) < 2;
  }

  /** @param {(typeof SETUPS)[number]} setup */
  function setupButton({ label, lanes: settingsOf }) {
    return make("button", { type: "button", class: "quiet", click: () => setUp(settingsOf(models())) }, label);
  }

  /** Have lanes with these settings instead of those that are there. @param {Partial<LaneSettings>[]} all */
  function setUp(all) {
    const before = lanes;
    show([]);
    for (const settings of all) addLane({ ...USUAL, ...settings });
    remember(before, before, "Other lanes.");
    asked = "";
    request();
  }

  /** Show these lanes, in the place of all others. @param {Lane[]} all */
  function show(all) {
    for (const lane of lanes) if (!all.includes(lane)) lane.stop();
    lanes = all;
    parts.lanes.replaceChildren(...all.map(({ root: one }) => one));
  }

  /**
   * Offer the lanes that were there before some were removed, unless those had no answer.
   * @param {Lane[]} before @param {Lane[]} gone @param {string} said
   */
  function remember(before, gone, said) {
    if (!gone.some(({ answers }) => answers)) return;
    past = [...past, { lanes: before, asked, said }].slice(-MOST_UNDONE);
    undone = [];
    offerBack();
  }

  function offerBack() {
    const button = (/** @type {string} */ label, /** @type {Moment[]} */ from, /** @type {Moment[]} */ to) =>
      from.length ? [make("button", { type: "button", click: () => goBack(from, to) }, label)] : [];
    parts.undo.replaceChildren(past.at(-1)?.said ?? "", ...button("Undo", past, undone), ...button("Redo", undone, past));
  }

  /** Show the lanes of the newest moment, and keep those that go for it. @param {Moment[]} from @param {Moment[]} to */
  function goBack(from, to) {
    const moment = /** @type {Moment} */ (from.pop());
    if (lanes.some((lane) => lane.answers && !moment.lanes.includes(lane))) to.push({ lanes, asked, said: moment.said });
    show(moment.lanes);
    asked = moment.asked;
    offerBack();
    parts.input.focus();
    request();
  }

  /** @param {LaneSettings} settings @param {string} [name] */
  function addLane(settings, name = [...NAMES].find((letter) => lanes.every((lane) => lane.name !== letter))) {
    if (!name) return;
    const lane = createLane(name, settings, { dirty: request, keep, remove, models: () => app.ready?.models ?? [] });
    const after = lanes.findLastIndex((one) => one.name < name);
    lanes = lanes.toSpliced(after + 1, 0, lane);
    parts.lanes.insertBefore(lane.root, parts.lanes.children[after + 1] ?? null);
    return lane;
  }

  /** @param {Lane} lane */
  function remove(lane) {
    if (lanes.length <= LEAST) return;
    const before = lanes;
    const at = lanes.indexOf(lane);
    show(lanes.filter((one) => one !== lane));
    remember(before, [lane], `Lane ${lane.name} is removed.`);
    bound();
    if (!lanes[Math.min(at, lanes.length - 1)].reach()) parts.add.focus();
    request();
  }

  /** Have new lanes with the same settings, where there are answers. */
  function renew() {
    const before = lanes;
    if (!before.some(({ answers }) => answers)) return;
    if (parts.lanes.contains(document.activeElement)) parts.input.focus();
    show([]);
    for (const lane of before) addLane(lane.settings(), lane.name)?.unfold(lane.unfolded);
    remember(before, before, "Raced again.");
  }

  /** Begin all lanes; those that run make place first, because a connection may have only so many. */
  async function start() {
    begun += 1;
    const mine = begun;
    await Promise.all(lanes.map((lane) => lane.stop()));
    if (mine !== begun) return;
    renew();
    asked = parts.input.value.trim() || EXAMPLE;
    parts.input.value = asked;
    speak(`${lanes.length} lanes are answering.`);
    for (const lane of lanes) {
      const messages = [{ role: /** @type {const} */ ("user"), content: asked }];
      lane.follow(client.generate({ messages, max_tokens: MAX_TOKENS, ...lane.options() }));
    }
  }

  function stopAll() {
    begun += 1;
    for (const lane of lanes) lane.stop();
  }

  function request() {
    if (!frame && !root.hidden) frame = requestAnimationFrame(paint);
  }

  function paint() {
    frame = 0;
    const longest = Math.max(1, ...lanes.map(({ pieces }) => pieces));
    const wins = winsOf(lanes);
    for (const lane of lanes) lane.paint(wins.get(lane) ?? [], lane.pieces / longest);
    const running = lanes.some(({ live }) => live);
    parts.go.textContent = running ? "Stop all" : "Race";
    parts.go.classList.toggle("stop", running);
    bound();
    mark(running);
    if (!running && asked) say();
    else if (running) parts.news.textContent = "";
  }

  /** Let lanes be added and removed as far as there may be more and fewer. */
  function bound() {
    parts.add.disabled = lanes.length >= MOST;
    for (const lane of lanes) lane.removable(lanes.length > LEAST);
  }

  /** Mark what the other lanes say and the first one does not. @param {boolean} running */
  function mark(running) {
    const { highlights } = CSS;
    if (!highlights) return;
    highlights.delete(HIGHLIGHT);
    if (running || !parts.marks.checked) return;
    const [first, ...others] = lanes.map((lane) => textIn(lane.text));
    const ranges = others.flatMap(({ text, places }) => (first.text && text ? rangesOf(places, onlyIn(text, first.text)) : []));
    highlights.set(HIGHLIGHT, new Highlight(...ranges));
  }

  function say() {
    const same = lanes.filter(({ said, state }) => said && state !== "failed" && said === lanes[0].said).length;
    const fastest = lanes.filter(({ state }) => state === "done").sort((one, other) => one.times().end - other.times().end)[0];
    const alike = same > 1 ? `${same === lanes.length ? "All" : same} lanes say the same. ` : "";
    const news = `${alike}${fastest ? `Lane ${fastest.name} ended first.` : ""}`;
    if (parts.news.textContent !== news) parts.news.textContent = news;
  }

  /** Begin a conversation with the answer of a lane, and go there. @param {Lane} lane */
  async function keep(lane) {
    const store = await app.store;
    const made = Date.now();
    const id = `race${made.toString(36)}${lane.name}`;
    const turn = { conversation: id, made };
    const { model } = lane.settings();
    await store.save(
      [{ id, title: titleOf(asked), named: false, made, changed: made, leaf: `${id}a` }],
      [
        { ...turn, id: `${id}q`, parent: null, role: "user", content: asked },
        { ...turn, id: `${id}a`, made: made + 1, parent: `${id}q`, role: "assistant", content: lane.said, ended: "stop", ...(model ? { model } : {}) },
      ],
    );
    location.hash = `#chat/${id}`;
  }

  return {
    /** @param {string} prompt */
    show(prompt) {
      offer();
      if (prompt && !parts.input.value) parts.input.value = decoded(prompt);
      request();
      if (matchMedia("(pointer: fine)").matches) parts.input.focus(); // a phone would show its keyboard
    },
    hide() {
      cancelAnimationFrame(frame);
      frame = 0;
    },
  };
}

/**
 * Return what each lane was the first in.
 * @param {Lane[]} lanes
 */
function winsOf(lanes) {
  /** @type {Map<Lane, string[]>} */
  const wins = new Map();
  /** @param {string} text @param {(lane: Lane) => number} timeOf */
  const give = (text, timeOf) => {
    const timed = lanes.filter((lane) => timeOf(lane) > 0).sort((one, other) => timeOf(one) - timeOf(other));
    if (lanes.length > 1 && timed.length) wins.set(timed[0], [...(wins.get(timed[0]) ?? []), text]);
  };
  give("first token", (lane) => lane.times().first);
  give("first to end", (lane) => lane.times().end);
  return wins;
}

/** @param {string} text of the address */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {HTMLElement} root */
function layOut(root) {
  root.classList.add("race");
  const input = make("textarea", { rows: "1", "aria-label": "Prompt for all lanes", placeholder: EXAMPLE });
  const go = make("button", { type: "submit", class: "race-go" }, "Race");
  const add = make("button", { type: "button", class: "quiet" }, "+ Lane");
  const setups = make("span", { class: "race-setups", role: "group", "aria-label": "Settings for all lanes" });
  const marks = make("input", { type: "checkbox", checked: true });
  const news = make("p", { class: "race-news", role: "status" });
  const undo = make("p", { class: "race-undo", role: "status" });
  const lanes = make("div", { class: "lanes" });
  const form = make("form", { class: "race-ask" }, input, go);
  const tools = make(
    "div",
    { class: "race-tools" },
    make("span", {}, "Compare:"), setups, add, make("label", { class: "check" }, marks, "Mark what differs from the first lane"), undo, news,
  );
  root.append(form, tools, lanes);
  return { form, input, go, add, setups, marks, undo, news, lanes };
}
