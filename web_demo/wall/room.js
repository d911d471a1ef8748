// @ts-check
/** The room with many streams at once, all on the page's one connection. */

import { createCurve, curveRoot } from "../shell/curve.js";
import { escapes, find, make } from "../shell/dom.js";
import { createRate } from "../shell/rate.js";
import { cutSocket } from "../shell/socket.js";
import { say } from "../shell/speaker.js";
import { createDrag } from "./drag.js";
import { createGrid } from "./grid.js";
import { storyOf } from "./stories.js";
import { createTile, LIVE } from "./tile.js";

/** @typedef {import("./tile.js").Tile} Tile */

const SIZES = [8, 32, 64];
const FIRST = 32;
const MAX_TOKENS = 400;
const WINDOW = 32; // frames that a slow reader leaves unread before the model waits for it
const FIGURES_MS = 250; // between two times that the figures are shown
const RESUMED_MS = 400; // until every story has answered after a lost connection
const HINT = "Start them, then choose a tile: it stops at once, and the others go on.";
const OTHERS = "How fast the other stories are written, beside before a reader was slow. What else the machine does counts too.";
const KEYS = " Arrow keys go from tile to tile; S, or to drag one, slows its reader.";
const AGAIN_MS = 1500; // between a story's end and the next one's begin, on an endless wall

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export async function open(root, app) {
  const { client } = app;
  const parts = layOut(root);
  /** @type {Tile[]} */
  let tiles = [];
  /** Tiles that are to be painted. @type {Set<Tile>} */
  const dirty = new Set();
  const tokens = createRate();
  const frames = createRate(1000);
  const curve = createCurve(parts.curve, { points: 140, least: 20 });
  createDrag(parts.grid, parts.slowing, (dropped) => tiles.find((tile) => tile.root === dropped)?.slow(true));
  const grid = createGrid(parts.grid, () => tiles, tapped);
  let frame = 0;
  let script = 0; // milliseconds of the page's own work in a frame, lately
  let shownAt = 0;
  let cutAt = 0;
  let asked = 0; // times that all were begun or stopped
  let askedAgain = 0; // of those below, because they had not begun
  /** Stories that ran when the connection was lost. @type {Tile[]} */
  let wereLive = [];
  let fair = 0; // tokens a second of a story before a reader was slow, or of others as soon as they have a rate
  let regroup = true;
  let runs = false; // whether one was live since all had ended
  const live = () => tiles.filter(({ state }) => LIVE.has(state));
  const size = () => Number(find("[name=wall-size]:checked", root).value);

  parts.form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    if (live().length) stopAll();
    else startAll();
  });
  parts.form.addEventListener("change", (/** @type {Event} */ event) => {
    if (/** @type {HTMLInputElement} */ (event.target).name === "wall-size") fill(size());
  });
  parts.plug.addEventListener("click", cutSocket);
  client.events.addEventListener("state", connectionChanged);
  document.addEventListener("keydown", (event) => {
    if (!root.hidden && escapes(event)) stopAll();
  });
  fill(FIRST);
  app.commands.add(() => (root.hidden ? [] : commands()));

  /** @returns {import("../shell/commands.js").Command[]} */
  function commands() {
    const running = live().length > 0;
    return [
      { id: "wall-start", label: running ? "Begin all stories anew" : "Begin all stories", group: "Wall", keys: ["b"], run: startAll },
      { id: "wall-stop", label: "Stop all stories", group: "Wall", shown: "Esc", run: stopAll },
      { id: "wall-plug", label: "Pull the plug", group: "Wall", keys: ["p"], run: cutSocket },
      { id: "wall-slow", label: "Slow the reader of the focused tile", group: "Wall", shown: "s" },
      { id: "wall-go", label: "Go from tile to tile", group: "Wall", shown: "← → ↑ ↓" },
    ];
  }

  /** Show a number of tiles; those that are there stay. @param {number} count */
  function fill(count) {
    for (const tile of tiles.splice(count)) {
      tile.stop();
      dirty.delete(tile);
      tile.root.remove();
    }
    while (tiles.length < count) {
      const tile = createTile(storyOf(tiles.length, "").title, {
        dirty: (one) => ask(one),
        token: tokens.add,
        changed: () => (regroup = true),
      });
      tiles.push(tile);
      parts.grid.append(tile.root);
    }
    grid.fit();
    regroup = true;
    request();
  }

  /** @param {Tile} tile */
  function ask(tile) {
    dirty.add(tile);
    request();
  }

  function request() {
    if (!frame && !root.hidden) frame = requestAnimationFrame(paint);
  }

  function paint() {
    frame = 0;
    const begin = performance.now();
    frames.add();
    for (const tile of dirty) if (tile.paint()) dirty.delete(tile);
    if (begin - shownAt > FIGURES_MS) showFigures(begin);
    script += (performance.now() - begin - script) / 20;
    if (live().length || regroup || dirty.size) request();
    else rest();
  }

  /** Nothing is written any more. */
  function rest() {
    const now = performance.now();
    frames.pause();
    showFigures(now);
    if (tokens.rate(now)) setTimeout(request, FIGURES_MS); // until none have come for a while
    if (runs && !parts.endless.checked) sayEnd();
    runs = false;
  }

  /** Say to who does not see the tiles how they ended. */
  function sayEnd() {
    const ends = ENDS.map((state) => [tiles.filter((tile) => tile.state === state).length, state]);
    say(`All have ended: ${ends.filter(([count]) => count).map(([count, state]) => `${count} ${state}`).join(", ")}.`);
  }

  /** @param {number} now */
  function showFigures(now) {
    shownAt = now;
    const rate = tokens.rate(now);
    const running = live();
    if (running.length || rate) curve.add(rate);
    parts.rate.textContent = Math.round(rate).toLocaleString("en");
    parts.total.textContent = tokens.total.toLocaleString("en");
    const [prompts, cached] = sumOf(tiles.map(({ prompt }) => prompt));
    parts.cached.textContent = prompts ? `${Math.round((100 * cached) / prompts)} %` : "–";
    const stop = middleOf(tiles.map(({ stopped }) => stopped).filter(Boolean));
    parts.stopped.textContent = stop ? stop.toFixed(stop < 10 ? 1 : 0) : "–";
    const fps = Math.round(frames.rate(now));
    if (running.length && fps) parts.frames.textContent = `${fps}`;
    parts.frames.title = `${script.toFixed(2)} ms of script in a frame`;
    showOthers();
    if (regroup) showGroups();
  }

  /** Say what a slow reader costs the others. */
  function showOthers() {
    const rates = tiles.filter(({ state, rate }) => state === "writing" && rate).map(({ rate }) => rate);
    const slow = tiles.some(({ state }) => state === "slow");
    // Where no text came for a while, it is as it was before; a reader may be slow before there is any rate.
    if (rates.length && !(slow && fair)) fair = middleOf(rates);
    parts.others.hidden = !slow || !fair || !rates.length;
    find("b", parts.others).textContent = `${(middleOf(rates) / fair).toFixed(2)}×`;
  }

  function showGroups() {
    regroup = false;
    const order = GROUPS.flatMap(({ states }) => tiles.filter(({ state }) => states.includes(state)));
    for (const [index, cell] of cellsFor(order.length).entries()) cell.dataset.state = order[index].state;
    const said = GROUPS.map(({ word, states }) => {
      const count = tiles.filter(({ state }) => states.includes(state)).length;
      return count ? `${count} ${word}` : "";
    }).filter(Boolean);
    parts.said.textContent = parts.said.title = said.join(" · ");
    const running = live().length > 0;
    parts.start.textContent = running ? "Stop all" : `Start ${tiles.length}`;
    parts.start.classList.toggle("stop", running);
    parts.plug.disabled = !running;
  }

  /** @param {number} count */
  function cellsFor(count) {
    const { cells } = parts;
    while (cells.childElementCount > count) cells.lastElementChild?.remove();
    while (cells.childElementCount < count) cells.append(make("i", { class: "cell" }));
    return /** @type {HTMLElement[]} */ ([...cells.children]);
  }

  /** Begin all stories; those that run make place first, because a connection may have only so many. */
  async function startAll() {
    asked += 1;
    const mine = asked;
    await Promise.all(live().map((tile) => tile.stop()));
    if (mine !== asked) return;
    curve.clear();
    parts.news.textContent = `${tiles.length} streams on one connection.`;
    for (const [index, tile] of tiles.entries()) begin(tile, index);
  }

  function stopAll() {
    asked += 1;
    const running = live();
    for (const tile of running) tile.stop();
    if (running.length) parts.news.textContent = `Stopped ${running.length}.`;
  }

  /** @param {Tile} tile @param {number} index */
  async function begin(tile, index) {
    if (LIVE.has(tile.state)) return;
    const { prompt } = storyOf(index, parts.prompt.value.trim());
    runs = true;
    const models = find("#models");
    const model = models.hidden ? {} : { model: models.value };
    const run = client.generate({ messages: [{ role: "user", content: prompt }], max_tokens: MAX_TOKENS, window: WINDOW, ...model });
    const again = await tile.follow(run);
    if (!tiles.includes(tile)) return;
    if (tile.wrong && !again) parts.news.textContent = `Failed: ${tile.wrong}`;
    if (again) {
      askedAgain += 1;
      begin(tile, index);
    } else if (tile.state === "done" && parts.endless.checked) setTimeout(() => goOn(tile, index), AGAIN_MS);
  }

  /** @param {Tile} tile @param {number} index */
  function goOn(tile, index) {
    if (tile.state === "done" && parts.endless.checked && tiles.includes(tile)) begin(tile, index);
  }

  /** @param {number} index @param {boolean} slows */
  function tapped(index, slows) {
    const tile = tiles[index];
    if (!LIVE.has(tile.state)) begin(tile, index);
    else if (slows || find("[name=wall-tap]:checked", root).value === "slow") tile.slow();
    else tile.stop();
  }

  function connectionChanged() {
    if (client.state === "waiting" && !cutAt) {
      cutAt = performance.now();
      wereLive = live();
      askedAgain = 0;
      for (const tile of wereLive) tile.cut();
    } else if (client.state === "open" && cutAt) {
      const gap = performance.now() - cutAt;
      cutAt = 0;
      if (wereLive.length) setTimeout(sayResumed, RESUMED_MS, gap);
    }
  }

  /** @param {number} gap milliseconds without a connection */
  function sayResumed(gap) {
    const lost = wereLive.filter(({ state }) => state === "failed").length;
    const kept = wereLive.length - lost - askedAgain;
    const again = askedAgain ? `${askedAgain} that had not begun asked again, ` : "";
    parts.news.textContent = `${kept} resumed, ${again}${lost} lost, after ${Math.round(gap)} ms without a connection.`;
  }

  /** @param {string} rest how many tiles, and perhaps `start` */
  function show(rest) {
    const [count, start] = rest.split("/");
    const radio = SIZES.includes(Number(count)) ? find(`[name=wall-size][value="${count}"]`, root) : null;
    if (radio && !radio.checked) {
      radio.checked = true;
      fill(size());
    }
    grid.fit();
    regroup = true;
    request();
    if (start === "start" && !live().length) startAll();
  }

  return {
    show,
    hide() {
      cancelAnimationFrame(frame);
      frame = 0;
    },
  };
}

/** What the cells show, in their order. @type {{word: string, states: string[]}[]} */
const GROUPS = [
  { word: "writing", states: ["writing"] },
  { word: "reading", states: ["reading", "loading"] },
  { word: "read slowly", states: ["slow"] },
  { word: "queued", states: ["queued"] },
  { word: "without a connection", states: ["cut"] },
  { word: "done", states: ["done"] },
  { word: "stopped", states: ["stopped"] },
  { word: "failed", states: ["failed"] },
  { word: "ready", states: ["idle"] },
];

/** How a story ends. */
const ENDS = ["done", "stopped", "failed"];

/** Return the median, 0 of none. @param {number[]} numbers */
const middleOf = (numbers) => numbers.sort((one, other) => one - other)[numbers.length >> 1] ?? 0;

/** @param {number[][]} pairs */
function sumOf(pairs) {
  return pairs.reduce(([one, other], [more, further]) => [one + more, other + further], [0, 0]);
}

/** @param {HTMLElement} root */
function layOut(root) {
  root.classList.add("wall");
  const rate = make("b", {}, "0");
  const curve = curveRoot("wall-curve");
  const cells = make("span", { class: "cells", "aria-hidden": "true" });
  const said = make("span", { class: "wall-said" });
  const stopped = make("b", {}, "–");
  const total = make("b", {}, "0");
  const cached = make("b", {}, "–");
  const frames = make("b", {}, "–");
  const others = make("div", { class: "wall-figure others", hidden: true, title: OTHERS }, make("b"), make("span", {}, "others’ speed"));
  const news = make("p", { class: "wall-news", role: "status" }, HINT, make("span", { class: "wall-keys" }, KEYS));
  const grid = make("div", { class: "tiles", role: "group", "aria-label": "Stories" });
  const start = make("button", { type: "submit", class: "primary" }, `Start ${FIRST}`);
  const plug = make("button", { type: "button", class: "plain", disabled: true }, "Pull the plug");
  const prompt = make("input", {
    class: "wall-prompt", "aria-label": "Prompt for every tile", placeholder: "A story in each tile, or your prompt for all", autocomplete: "off",
  });
  const endless = make("input", { type: "checkbox" });
  const form = make(
    "form",
    { class: "wall-controls" },
    choice("wall-size", "Streams", SIZES.map((value) => [String(value), String(value)]), String(FIRST)),
    prompt,
    make("label", { class: "check" }, endless, "Endless"),
    choice("wall-tap", "What a click does", [["stop", "Click stops"], ["slow", "Click slows"]], "stop"),
    plug,
    start,
  );
  const figure = (/** @type {HTMLElement} */ number, /** @type {string} */ text) =>
    make("div", { class: "wall-figure" }, number, make("span", {}, text));
  const top = make(
    "div",
    { class: "wall-figures" },
    figure(rate, "tokens/s in all"),
    curve,
    make("div", { class: "wall-batch" }, cells, said),
    others,
    figure(stopped, "ms to stop one"),
    figure(total, "tokens"),
    figure(cached, "of prompts cached"),
    figure(frames, "frames/s"),
  );
  const slowing = make("div", { class: "wall-slowing", hidden: true, "aria-hidden": "true" }, "Drop it here: a slow reader");
  root.append(form, top, news, grid, slowing);
  return { form, rate, curve, cells, said, stopped, total, cached, frames, others, news, grid, slowing, start, plug, prompt, endless };
}

/**
 * Radio buttons in a row.
 * @param {string} name @param {string} label @param {string[][]} options values and texts @param {string} chosen
 */
function choice(name, label, options, chosen) {
  const radios = options.map(([value, text]) =>
    make("label", {}, make("input", { type: "radio", name, value, checked: value === chosen }), make("span", {}, text)),
  );
  return make("fieldset", { class: "wall-choice" }, make("legend", {}, label), ...radios);
}
