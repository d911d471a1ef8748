// @ts-check
/** The room in which a tape is played: its generations as tiles, as they were, without a gateway. */

import { copyText, make, useStyle } from "../shell/dom.js";
import { createGrid } from "../wall/grid.js";
import { createTile } from "../wall/tile.js";
import { createPlayer } from "./player.js";
import { askedIn, fromLink, fromText, lengthOf, toLink, toText } from "./tape.js";

const LONGEST_PAUSE_MS = 1200; // where pauses are skipped
const COPIED_MS = 1500;
const SAMPLE = "/tapes/sample.json"; // `make sample-tape` records it

/** @typedef {import("./tape.js").Tape} Tape */
/** @typedef {import("../wall/tile.js").Tile} Tile */

/** A tape that another part of the page wants played. @type {Tape | null} */
let handed = null;

/** Play a tape that was just recorded. @param {Tape} tape */
export function hand(tape) {
  handed = tape;
  if (location.hash === "#tape") dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = "#tape";
}

/** Load how tiles look. */
export const prepare = () => useStyle("/wall/wall.css");

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export function open(root, app) {
  const parts = layOut(root);
  /** @type {Tape | null} */
  let tape = null;
  let linked = "";
  /** @type {ReturnType<typeof createPlayer> | null} */
  let player = null;
  /** @type {Map<string, Tile>} */
  let tiles = new Map();
  /** @type {Set<Tile>} */
  const dirty = new Set();
  const grid = createGrid(parts.grid, () => [...tiles.values()], () => {});
  let time = 0; // of the tape, in milliseconds
  let at = 0; // of the page, when the tape was moved on last
  let playing = false;
  let frame = 0;

  parts.play.addEventListener("click", () => (playing ? pause() : play()));
  parts.line.addEventListener("input", () => seek(Number(parts.line.value)));
  parts.file.addEventListener("change", () => read(parts.file.files?.[0]));
  parts.openFile.addEventListener("click", () => parts.file.click());
  parts.save.addEventListener("click", () => tape && download(tape));
  parts.share.addEventListener("click", share);
  app.commands.add(() => {
    if (root.hidden || !tape) return [];
    return [{ id: "tape-play", label: playing ? "Pause the tape" : "Play the tape", group: "Tape", shown: "Space", run: () => parts.play.click() }];
  });
  root.addEventListener("drop", (event) => read(event.dataTransfer?.files[0]));
  document.addEventListener("keydown", (event) => {
    const within = event.target instanceof Element && event.target.closest("button, input, select, textarea");
    if (event.key !== " " || root.hidden || within || !tape) return;
    event.preventDefault();
    parts.play.click();
  });

  /** @param {File | undefined} file */
  async function read(file) {
    parts.file.value = "";
    if (file) load(async () => fromText(await file.text()));
  }

  /** @param {() => Promise<Tape>} source */
  async function load(source) {
    put(parts.wrong, "");
    try {
      begin(await source());
    } catch (error) {
      put(parts.wrong, `Not played: ${/** @type {Error} */ (error).message}.`);
    }
  }

  /** Play the tape that comes with the page, unless another one is there by then. */
  async function sample() {
    const text = await fetch(SAMPLE).then((answer) => (answer.ok ? answer.text() : "")).catch(() => "");
    if (text && !tape) begin(fromText(text), true);
  }

  /** @param {Tape} next @param {boolean} [isSample] */
  function begin(next, isSample = false) {
    tape = next;
    root.classList.add("loaded");
    root.classList.toggle("sample", isSample);
    put(parts.title, next.title);
    parts.line.max = String(Math.ceil(lengthOf(next)));
    for (const one of [parts.play, parts.line, parts.save, parts.share]) one.disabled = false;
    rewind();
    play();
  }

  /** Go to the beginning. */
  function rewind() {
    player?.close();
    if (!tape) return;
    const client = (player = createPlayer(tape, { asked: follow, cut: () => tiles.forEach((tile) => tile.cut()) })).client;
    dirty.clear();
    const made = askedIn(tape).map(({ id, title }) => /** @type {const} */ ([id, createTile(title, { dirty: ask, token() {}, changed() {}, still: true })]));
    tiles = new Map(made);
    parts.grid.replaceChildren(...made.map(([, tile]) => tile.root));
    grid.fit();
    time = 0;

    /** @param {string} id */
    function follow(id) {
      tiles.get(id)?.follow(client.resume({ id, ticket: "tape" }));
    }
  }

  /** @param {Tile} tile */
  function ask(tile) {
    dirty.add(tile);
    request();
  }

  function request() {
    if (!frame && !root.hidden) frame = requestAnimationFrame(paint);
  }

  /** @param {number} now */
  function paint(now) {
    frame = 0;
    if (playing && player && tape) {
      time += (at ? Math.max(0, now - at) : 0) * Number(parts.speed.value);
      at = now;
      skip();
      advance(true);
      if (player.over) pause();
    }
    for (const tile of dirty) if (tile.paint()) dirty.delete(tile);
    showTime();
    if (playing || dirty.size) request();
  }

  /** Leave out a pause in which nothing happens. */
  function skip() {
    const next = player?.nextAt ?? 0;
    if (parts.skips.checked && next - time > LONGEST_PAUSE_MS) time = next - LONGEST_PAUSE_MS / 2;
  }

  /** @param {boolean} told */
  function advance(told) {
    try {
      player?.to(time, told);
    } catch {
      pause();
      put(parts.wrong, "The tape ends here: it is damaged.");
    }
  }

  /** @param {number} to */
  function seek(to) {
    const backwards = to < time;
    if (backwards) rewind();
    time = to;
    advance(false);
    at = 0;
    if (!playing) pause();
    request();
  }

  function play() {
    if (player?.over) rewind();
    playing = true;
    at = 0;
    parts.play.textContent = "Pause";
    request();
  }

  function pause() {
    playing = false;
    parts.play.textContent = player?.over ? "Again" : "Play";
  }

  function showTime() {
    if (!tape) return;
    const shown = Math.min(time, lengthOf(tape));
    if (document.activeElement !== parts.line || playing) parts.line.value = String(Math.round(shown));
    put(parts.time, `${seconds(shown)} of ${seconds(lengthOf(tape))}`);
  }

  async function share() {
    if (!tape) return;
    const link = await toLink(tape);
    if (!link) return put(parts.wrong, "This tape is too long for a link. Save it as a file instead.");
    linked = link;
    history.replaceState(null, "", `#tape/${link}`);
    try {
      if (!(await copyText(location.href))) return;
      parts.share.textContent = "Copied";
    } catch {
      parts.share.textContent = "It is in the address"; // a page without https may not copy
    }
    setTimeout(() => (parts.share.textContent = "Copy link"), COPIED_MS);
  }

  return {
    /** @param {string} link */
    async show(link) {
      const given = handed;
      handed = null;
      if (given) begin(given);
      else if (link && link !== linked) await load(() => fromLink(link));
      else if (!link && !tape) await sample();
      linked = link;
      grid.fit();
      request();
    },
    hide() {
      pause();
      cancelAnimationFrame(frame);
      frame = 0;
    },
  };
}

/** Save a tape as a file. @param {Tape} tape */
export function download(tape) {
  const url = URL.createObjectURL(new Blob([toText(tape)], { type: "application/json" }));
  make("a", { href: url, download: "stream.tape.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url));
}

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} root */
function layOut(root) {
  root.classList.add("wall", "tapes");
  const play = make("button", { type: "button", class: "primary", disabled: true }, "Play");
  const line = make("input", { type: "range", min: "0", max: "1", value: "0", step: "1", "aria-label": "Time", disabled: true });
  const time = make("span", { class: "tape-time" });
  const speed = make("select", { "aria-label": "Speed" }, ...[0.25, 0.5, 1, 2, 4].map((value) => new Option(`${value}×`, String(value), value === 1, value === 1)));
  const skips = make("input", { type: "checkbox", checked: true });
  const openFile = make("button", { type: "button", class: "plain" }, "Open a tape…");
  const save = make("button", { type: "button", class: "plain", disabled: true }, "Save");
  const share = make("button", { type: "button", class: "plain", disabled: true }, "Copy link");
  const file = make("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": "Tape" });
  const title = make("h2", { class: "tape-title" });
  const wrong = make("p", { class: "tape-wrong", role: "alert" });
  const grid = make("div", { class: "tiles", role: "group", "aria-label": "Generations of the tape" });
  const about = make(
    "div",
    { class: "tape-about" },
    make("h2", {}, "Streams, played back"),
    make("p", {}, "A tape has the frames of a session with their times. Record one in the Wire drawer, open a file, or drop it here: it plays without a gateway, and a short one fits into a link."),
  );
  const controls = make(
    "div",
    { class: "wall-controls" },
    play, line, time, speed, make("label", { class: "check" }, skips, "Skip pauses"), openFile, save, share, file,
  );
  root.append(controls, title, wrong, about, grid);
  return { play, line, time, speed, skips, openFile, save, share, file, title, wrong, grid };
}
