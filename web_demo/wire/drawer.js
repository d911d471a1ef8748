// @ts-check
/** The drawer with the frames that go over the socket. It watches only while it is open. */

import { copyText, make } from "../shell/dom.js";
import { lastRequest, watchSocket } from "../shell/socket.js";
import { shortened } from "../tapes/tape.js";
import { javascript, python, react, shell } from "./code.js";
import { createFrames, summaryOf } from "./frames.js";
import { packed } from "./msgpack.js";

const ROW = 22; // pixels
const SPARE = 4; // rows above and below those that are seen
const COPIED_MS = 1500;
const FIGURES_MS = 250;
const PROGRAMS = { JavaScript: javascript, React: react, Python: python, Shell: shell };
/** What a program asks where the page has asked nothing yet. */
const EXAMPLE = { type: "generate", messages: [{ role: "user", content: "Tell me a story about a fox" }] };

/** @typedef {import("./frames.js").Passed} Passed */

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export function open(root, app) {
  const frames = createFrames();
  const list = make("div", { class: "wire-list", tabindex: "0", role: "listbox", "aria-label": "Frames" });
  const space = make("div", { class: "wire-space", role: "presentation" });
  const empty = make("p", { class: "wire-empty" }, "Frames appear here as they pass. Ask something, or open the wall.");
  const filter = make("input", { type: "search", placeholder: "Filter by a word", "aria-label": "Filter frames", input: choose });
  const way = make(
    "select",
    { "aria-label": "Direction", change: choose },
    new Option("↑↓", ""), new Option("↑ sent", "out"), new Option("↓ got", "in"),
  );
  const pause = make("button", { type: "button", class: "quiet", "aria-pressed": "false", click: togglePause }, "Pause");
  const clear = make("button", { type: "button", class: "quiet", click: clearAll }, "Clear");
  const copyAll = make("button", { type: "button", class: "quiet", click: () => copy(copyAll, lines()) }, "Copy");
  const replay = make("button", { type: "button", class: "quiet", title: "Play what was recorded here", click: playBack }, "Replay");
  const save = make("button", { type: "button", class: "quiet", title: "Save what was recorded here as a tape", click: saveTape }, "Save");
  const code = make("button", { type: "button", class: "quiet", title: "Programs that make the newest request", click: () => showCode() }, "Code");
  const sums = make("p", { class: "wire-sums" });
  const detail = make("div", { class: "wire-detail", hidden: true });
  /** Rows that are used again as the list is scrolled. @type {ReturnType<typeof createRow>[]} */
  const rows = [];
  let frame = 0;
  let paused = false;
  let missed = 0;
  let follows = true; // the newest frame
  let sumsAt = 0;
  /** @type {ReturnType<typeof setTimeout> | 0} */
  let later = 0; // when the sums are shown again
  let began = 0;
  /** @type {Passed | null} */
  let picked = null;
  /** @type {(() => void) | null} */
  let unwatch = null;

  list.append(space);
  list.addEventListener("scroll", scrolled, { passive: true });
  list.addEventListener("click", (event) => {
    const row = rows.find((one) => one.root.contains(/** @type {Node} */ (event.target)));
    if (row?.of) showAt(frames.chosen.indexOf(row.of));
  });
  list.addEventListener("keydown", onKey);
  root.classList.add("wire");
  root.append(make("div", { class: "wire-tools" }, filter, way, pause, clear, copyAll, save, replay, code), sums, empty, list, detail);

  app.commands.add(() => (app.drawers.shown() === "wire" ? commands() : []));

  /** @returns {import("../shell/commands.js").Command[]} */
  function commands() {
    return [
      { id: "wire-go", label: "Go from frame to frame", group: "Wire", shown: "↑ ↓" },
      { id: "wire-pause", label: paused ? "Let frames pass on" : "Hold the frames", group: "Wire", run: togglePause },
      { id: "wire-clear", label: "Forget the frames", group: "Wire", run: clearAll },
      { id: "wire-replay", label: "Play what was recorded", group: "Wire", run: playBack },
      { id: "wire-save", label: "Save what was recorded as a tape", group: "Wire", run: saveTape },
      { id: "wire-code", label: "Programs that make the newest request", group: "Wire", run: () => showCode() },
    ];
  }

  /** @param {string} text @param {import("../shell/socket.js").Way} direction */
  function passed(text, direction) {
    if (paused) missed += 1;
    else frames.add(text, direction, performance.now());
    request();
  }

  function request() {
    frame ||= requestAnimationFrame(paint);
  }

  function choose() {
    frames.filter(filter.value, /** @type {any} */ (way.value));
    follows = true;
    request();
  }

  function clearAll() {
    frames.clear();
    pick(null);
    sumsAt = began = 0;
    choose();
  }

  function togglePause() {
    paused = !paused;
    missed = 0;
    pause.ariaPressed = String(paused);
    pause.textContent = paused ? "Go on" : "Pause";
    request();
  }

  const lines = () => frames.chosen.filter(({ way: direction }) => direction === "in" || direction === "out").map(({ text }) => text).join("\n");

  async function tapes() {
    const [room, { recorded }] = await Promise.all([import("../tapes/room.js"), import("../tapes/tape.js")]);
    return { room, tape: recorded(frames.all, `Recorded on ${new Date().toLocaleString()}`) };
  }

  async function playBack() {
    const { room, tape } = await tapes();
    clearAll(); // what is played passes here again
    room.hand(tape);
  }

  async function saveTape() {
    const { room, tape } = await tapes();
    room.download(tape);
  }

  function scrolled() {
    follows = list.scrollHeight - list.scrollTop - list.clientHeight < 2 * ROW;
    request();
  }

  function paint() {
    cancelAnimationFrame(frame);
    frame = 0;
    const { chosen } = frames;
    began ||= chosen[0]?.at ?? 0;
    const height = `${chosen.length * ROW}px`;
    if (space.style.height !== height) space.style.height = height;
    empty.hidden = chosen.length > 0;
    const seen = list.clientHeight;
    if (follows) list.scrollTop = chosen.length * ROW - seen;
    const top = follows ? Math.max(0, chosen.length * ROW - seen) : list.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW) - SPARE);
    const count = Math.min(chosen.length - first, Math.ceil(seen / ROW) + 2 * SPARE);
    while (rows.length < count) {
      const made = createRow();
      rows.push(made);
      space.append(made.root);
    }
    for (const [index, row] of rows.entries()) row.show(index < count ? chosen[first + index] : null, first + index, began, picked);
    const now = performance.now();
    if (now - sumsAt > FIGURES_MS || paused) showSums(now);
    else later ||= setTimeout(request, FIGURES_MS);
  }

  /** @param {number} now */
  function showSums(now) {
    clearTimeout(later);
    later = 0;
    sumsAt = now;
    const { in: received, out: sent } = frames.sums;
    const parts = [`↑ ${counted(sent)}`, `↓ ${counted(received)}`];
    if (paused) parts.push(missed ? `paused, ${missed} more have passed` : "paused");
    sums.textContent = parts.join(" · ");
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
    const { chosen } = frames;
    if (!step || !chosen.length) return;
    event.preventDefault();
    const at = picked ? chosen.indexOf(picked) : chosen.length;
    const to = Math.min(chosen.length - 1, Math.max(0, (at < 0 ? chosen.length : at) + step));
    showAt(to);
  }

  /** Show a frame of the list in full, and keep it in sight. @param {number} index */
  function showAt(index) {
    follows = false;
    pick(frames.chosen[index]);
    if (index * ROW < list.scrollTop || (index + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (index - 4) * ROW;
  }

  /** Show a frame in full. @param {Passed | null} one */
  function pick(one) {
    picked = one;
    detail.hidden = !one;
    if (one) detail.replaceChildren(...detailOf(one));
    paint();
    const row = rows.find(({ of }) => one && of === one);
    if (row) list.setAttribute("aria-activedescendant", row.root.id);
    else list.removeAttribute("aria-activedescendant");
  }

  /** @param {Passed} one */
  function detailOf(one) {
    /** @type {any} */
    let read = null;
    try {
      read = JSON.parse(one.text);
    } catch {
      return [make("pre", { tabindex: "0" }, one.text)];
    }
    const bytes = packed(read);
    const sizes = `${one.size} bytes of JSON${bytes ? `, ${bytes.length} of msgpack` : ""}`;
    const codes = read.type === "generate" ? [make("button", { type: "button", class: "quiet", click: () => showCode(read) }, "Code")] : [];
    return [
      make("div", { class: "wire-acts" }, make("span", {}, sizes), copier("Copy", () => one.text), ...codes, closer()),
      make("pre", { tabindex: "0", "aria-label": "The frame" }, JSON.stringify(read, null, 2)),
      ...(bytes ? [make("pre", { class: "wire-bytes", tabindex: "0", "aria-label": "As msgpack" }, hex(bytes))] : []),
    ];
  }

  const closer = () => make("button", { type: "button", class: "quiet", "aria-label": "Close", click: () => pick(null) }, "×");

  /** Show a program that makes a request. @param {any} request @param {keyof typeof PROGRAMS} language */
  function showCode(request = lastRequest() ?? EXAMPLE, language = "JavaScript") {
    const text = PROGRAMS[language](request, location.origin);
    const tabs = /** @type {(keyof typeof PROGRAMS)[]} */ (Object.keys(PROGRAMS)).map((name) =>
      make("button", { type: "button", class: "quiet", "aria-pressed": String(name === language), click: () => showCode(request, name) }, name),
    );
    detail.hidden = false;
    detail.replaceChildren(
      make("div", { class: "wire-acts" }, ...tabs, make("span"), copier("Copy", () => text), closer()),
      make("pre", { tabindex: "0", "aria-label": "The program" }, text),
    );
  }

  return {
    show() {
      unwatch ??= watchSocket(passed);
      choose();
    },
    hide() {
      unwatch?.();
      unwatch = null;
      cancelAnimationFrame(frame);
      clearTimeout(later);
      frame = later = 0;
    },
  };
}

let rowsMade = 0;

function createRow() {
  const parts = ["time", "way", "type", "id", "says", "size"].map((name) => make("span", { class: `wire-${name}` }));
  rowsMade += 1;
  const root = make("div", { id: `wire-row-${rowsMade}`, class: "wire-row", role: "option", "aria-selected": "false" }, ...parts);
  const [time, arrow, type, id, says, size] = parts;
  /** @type {Passed | null} */
  let of = null;

  return {
    root,
    get of() {
      return of;
    },
    /** @param {Passed | null} next @param {number} index @param {number} began @param {Passed | null} picked */
    show(next, index, began, picked) {
      root.hidden = !next;
      const selected = String(next !== null && next === picked);
      if (root.ariaSelected !== selected) root.ariaSelected = selected;
      if (!next) {
        of = null;
        return;
      }
      const at = `translateY(${index * ROW}px)`;
      if (root.style.transform !== at) root.style.transform = at;
      if (of === next) return;
      of = next;
      const summary = summaryOf(next);
      root.dataset.way = next.way;
      root.dataset.type = summary.type;
      time.textContent = seconds((next.at - began) / 1000);
      arrow.textContent = { in: "↓", out: "↑", opened: "•", closed: "•" }[next.way];
      type.textContent = summary.type;
      id.textContent = shortened(summary.id);
      id.title = summary.id;
      says.textContent = summary.says;
      size.textContent = next.way === "in" || next.way === "out" ? `${next.size}` : "";
    },
  };
}

/** @param {number} time */
const seconds = (time) => time.toFixed(time < 100 ? 3 : time < 1000 ? 2 : 1);

/** @param {{frames: number, bytes: number}} sum */
function counted({ frames, bytes }) {
  const size = bytes < 1e4 ? `${bytes} B` : bytes < 1e7 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  return `${frames.toLocaleString("en")} ${frames === 1 ? "frame" : "frames"}, ${size}`;
}

/** @param {Uint8Array} bytes */
const hex = (bytes) => [...bytes.subarray(0, 512)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ") + (bytes.length > 512 ? " …" : "");

/** @param {string} label @param {() => string} text */
function copier(label, text) {
  const button = make("button", { type: "button", class: "quiet", click: () => copy(button, text()) }, label);
  return button;
}

/** @param {HTMLElement} button @param {string} text */
async function copy(button, text) {
  const before = button.dataset.label ?? button.textContent ?? "";
  button.dataset.label = before;
  try {
    if (!(await copyText(text))) return;
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = before), COPIED_MS);
}
