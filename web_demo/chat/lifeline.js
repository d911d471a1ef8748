// @ts-check
/** The life line below an answer: its wait, its prompt, its pace and its end, drawn while they happen. */

import { make } from "../shell/dom.js";
import { plan, unplan } from "../shell/frames.js";
import { courseOf, createLife, duration, partsOf, plural, sentenceOf } from "./life.js";

/** @typedef {import("./life.js").Life} Life */

const EVERY_MS = 400; // between two drawings
const WIDTH = 72; // of the course of the pace, in pixels
const HEIGHT = 14;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {HTMLElement} root where it is drawn
 * @param {number} answers how many are written at once
 * @param {boolean} naming whether the model is named at the end
 */
export function createLifeline(root, answers, naming) {
  const record = createLife(performance.now(), answers);
  const course = createCourse();
  const bar = make("span", { class: "meter", role: "img" }, make("span", { class: "cached" }), make("span", { class: "read" }));
  let drawnAt = 0;
  let over = false;
  let shown = "";
  /** The parts that are shown. @type {ReturnType<typeof partElement>[]} */
  let elements = [];
  let waited = true; // whether there was no text yet when it was drawn last

  /** Draw soon, at most some times a second. */
  function later() {
    if (!over) plan(draw, drawnAt + EVERY_MS - performance.now());
  }

  function draw() {
    unplan(draw);
    drawnAt = performance.now();
    const { life } = record;
    waited = life.first === null;
    const lost = record.lost(drawnAt);
    const state = lost ? `connection lost, ${duration(Math.max(lost, 100))} ago` : record.state();
    root.classList.toggle("lost", lost > 0);
    show(life, state, life.first === null && !lost ? record.read() : null);
    if (lost) later(); // it counts
  }

  /** @param {Life} life @param {string} state @param {number | null} read the share of the prompt, null once it is all read */
  function show(life, state, read) {
    const parts = state && life.first === null ? [] : partsOf(naming || life.ended === null ? life : { ...life, model: "" });
    const text = `${state}|${parts.map((part) => part.text).join("|")}`;
    if (text !== shown) {
      shown = text;
      put([...(state ? [{ kind: "now", text: state, title: "" }] : []), ...parts]);
      const prompt = root.querySelector(".prompt, .now");
      if (!prompt || !life.prompt || (read === null && !life.ended)) bar.remove();
      else if (bar.parentNode !== prompt) prompt.prepend(bar);
      const rate = root.querySelector(".rate");
      if (rate && life.pace.length > 2 && course.root.parentNode !== rate) rate.append(course.root);
    }
    if (course.root.parentNode) course.show(life);
    if (!bar.parentNode) return;
    bar.style.setProperty("--cached", `${(100 * life.cached) / Math.max(1, life.prompt)}%`);
    bar.style.setProperty("--read", `${100 * (read ?? 1)}%`);
    bar.ariaLabel = `${plural(life.prompt, "token")} of the prompt, ${life.cached} of them cached`;
  }

  /** Show some parts; where only their texts differ from those that are shown, the elements stay. @param {Part[]} parts */
  function put(parts) {
    const alike = parts.length === elements.length && parts.every(({ kind }, index) => kind === elements[index].kind);
    if (!alike) {
      elements = parts.map(partElement);
      return root.replaceChildren(...elements.map((one) => one.root));
    }
    for (const [index, { text, title }] of parts.entries()) {
      const one = elements[index];
      if (one.text.data !== text) one.text.data = text;
      if (one.root.title !== title) one.root.title = title;
    }
  }

  return {
    record,
    later,
    draw,
    /** The page is painted anyway: draw too, if it is time. */
    drawn() {
      const begun = waited && record.life.first !== null; // what it waited for must not stay beside a text
      if (!over && (begun || performance.now() - drawnAt >= EVERY_MS)) draw();
    },
    /** Draw an end, which stays. */
    end() {
      over = false;
      draw();
      over = true;
    },
    /** Draw the life of an answer that has ended. @param {Life} life */
    restore(life) {
      over = true;
      show(life, "", null);
    },
    /** Show a text instead. @param {string} text */
    say(text) {
      unplan(draw);
      elements = [];
      shown = text;
      root.replaceChildren(make("span", { class: "now" }, text));
    },
    sentence: () => sentenceOf(record.life),
  };
}

/** @typedef {{kind: string, text: string, title: string}} Part */

/** @param {Part} part */
function partElement({ kind, text, title }) {
  const node = new Text(text);
  return { kind, text: node, root: make("span", { class: kind, title: title || undefined }, node) };
}

/** The course of the pace as a small picture. */
function createCourse() {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("viewBox", `0 -1 ${WIDTH} ${HEIGHT + 2}`);
  root.setAttribute("aria-hidden", "true");
  const [line, marks] = ["line", "marks"].map((name) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    root.append(path);
    return path;
  });
  return {
    root,
    /** @param {Life} life */
    show(life) {
      const drawn = courseOf(life, WIDTH, HEIGHT);
      line.setAttribute("d", drawn.line);
      marks.setAttribute("d", drawn.marks);
    },
  };
}
