// @ts-check
/** One lane of a race: its settings, and the answer that they make of the prompt. */

import { createView } from "../markdown/view.js";
import { find, make } from "../shell/dom.js";

/** @typedef {ReturnType<typeof createLane>} Lane */
/** @typedef {{model: string, temperature: number, seed: string, thinking: string, form: string, system: string}} LaneSettings */
/** @typedef {"ready" | "waiting" | "reading" | "writing" | "done" | "stopped" | "failed"} State */

export const USUAL = { model: "", temperature: 0.7, seed: "", thinking: "", form: "text", system: "" };
const LIVE = new Set(["waiting", "reading", "writing"]);

/**
 * @param {string} name a letter
 * @param {LaneSettings} given
 * @param {{dirty: () => void, keep: (lane: any) => void, remove: (lane: any) => void, models: () => string[]}} hooks
 */
export function createLane(name, given, hooks) {
  const model = make("select", { "aria-label": `Model of lane ${name}` });
  const temperature = field("Temperature", { type: "number", min: "0", max: "2", step: "0.1", value: String(given.temperature) });
  const seed = field("Seed", { type: "number", min: "0", placeholder: "random", value: given.seed });
  const thinking = picker("Thinking", [["", "as the model does"], ["yes", "on"], ["no", "off"]], given.thinking);
  const form = picker("Answer as", [["text", "text"], ["json_object", "JSON"]], given.form);
  const system = field("System prompt", { type: "text", placeholder: "none", value: given.system });
  const thought = document.createTextNode("");
  const reasoning = make("details", { class: "lane-thought", hidden: true }, make("summary", {}, "Thinking"), make("p", {}, thought));
  const text = make("div", { class: "lane-text" });
  const figures = make("p", { class: "lane-figures" });
  const badges = make("span", { class: "lane-badges" });
  const bar = make("i");
  const stop = make("button", { type: "button", class: "quiet", hidden: true, click: () => run?.cancel() }, "Stop");
  const keep = make("button", { type: "button", class: "quiet", hidden: true, "aria-label": "Keep in chat", title: "Keep in chat", click: () => hooks.keep(self) }, "Keep");
  const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove lane ${name}`, click: () => hooks.remove(self) }, "×");
  const more = make("details", { class: "lane-more" }, make("summary", {}, "More"), thinking.label, form.label, system.label);
  const root = make(
    "section",
    { class: "lane", "aria-label": `Lane ${name}`, "data-state": "ready" },
    make("header", { class: "lane-head" }, make("b", {}, name), badges, stop, keep, remove),
    make("div", { class: "lane-settings" }, model, temperature.label, seed.label, more),
    make("div", { class: "lane-track", "aria-hidden": "true" }, bar),
    make("div", { class: "lane-said", tabindex: "0", role: "region", "aria-label": `Answer of lane ${name}` }, reasoning, text),
    figures,
  );
  /** @type {State} */
  let state = "ready";
  let waiting = "";
  let all = "";
  /** Shows Markdown; null where the answer is JSON. @type {ReturnType<typeof createView> | null} */
  let view = null;
  let thoughts = "";
  let emptied = false;
  let ended = true; // and all is shown
  let note = "";
  let pieces = 0;
  let began = 0;
  let firstAt = 0;
  let endedAt = 0;
  let rate = 0;
  /** @type {import("../client.js").Run | null} */
  let run = null;
  /** Resolves when the run has ended. @type {Promise<unknown>} */
  let over = Promise.resolve();

  /** @param {State} next @param {string} [words] */
  function become(next, words = "") {
    state = next;
    note = words;
    hooks.dirty();
  }

  /** @param {import("../client.js").RunEvent} event */
  function happened(event) {
    if (event.type === "progress") {
      const { progress } = event;
      if ("queued" in progress) become("waiting", `place ${progress.queued} in the queue`);
      else if ("loading" in progress) become("waiting", `loading ${progress.loading}`);
      else if ("done" in progress) become("reading", `reading the prompt, ${progress.done} of ${progress.total} tokens`);
      else become("reading", "reading the prompt");
    } else if (event.type === "text" || event.type === "reasoning") {
      firstAt ||= performance.now();
      pieces += 1;
      if (event.type === "text") waiting += event.text;
      else thoughts += event.text;
      become("writing");
    }
  }

  const self = {
    name,
    root,
    /** Show the models that there are. */
    offer() {
      const names = hooks.models();
      const chosen = model.value || given.model || find("#models").value;
      model.replaceChildren(...names.map((one) => new Option(one)));
      if (names.includes(chosen)) model.value = chosen;
      model.hidden = names.length < 2;
    },
    /** @returns {LaneSettings} */
    settings: () => ({
      model: model.hidden ? "" : model.value, temperature: Number(temperature.input.value) || 0, seed: seed.input.value,
      thinking: thinking.input.value, form: form.input.value, system: system.input.value.trim(),
    }),
    /** Return what a request has of the lane's settings. */
    options() {
      const set = self.settings();
      return {
        temperature: set.temperature,
        ...(set.model ? { model: set.model } : {}),
        ...(set.seed === "" ? {} : { seed: Number(set.seed) }),
        ...(set.thinking ? { enable_thinking: set.thinking === "yes" } : {}),
        ...(set.form === "text" ? {} : { response_format: { type: /** @type {"json_object"} */ (set.form) } }),
        ...(set.system ? { system_prompt: set.system } : {}),
      };
    },
    /** Show the answer of a run; the one before must have ended. @param {import("../client.js").Run} next */
    follow: (next) => void (over = fill(next)),
    /** Stop the answer. Resolves when it has ended. */
    stop() {
      run?.cancel();
      return over;
    },
    /** Show the settings that are folded at first, or hide them. @param {boolean} open */
    unfold: (open) => void (more.open = open),
    get unfolded() {
      return more.open;
    },
    /** Let it be removed, or not. @param {boolean} may */
    removable(may) {
      remove.disabled = !may;
      remove.title = may ? "" : "A race has two lanes at least";
    },
    /** Go to the button that removes it; false if it can't be removed. */
    reach() {
      remove.focus();
      return document.activeElement === remove;
    },
    get live() {
      return LIVE.has(state);
    },
    get state() {
      return state;
    },
    /** Whether it has an answer, or may still get one. */
    get answers() {
      return self.live || Boolean(all || waiting || thought.data || thoughts);
    },
    /** What the answer is so far, as the model wrote it. */
    get said() {
      return all;
    },
    text,
    get pieces() {
      return pieces;
    },
    /** Milliseconds from the start to the first token and to the end; 0 while there is none. */
    times: () => ({ first: firstAt ? firstAt - began : 0, end: endedAt && state === "done" ? endedAt - began : 0 }),
    rate: () => rate || (pieces > 1 && firstAt ? (1000 * (pieces - 1)) / (performance.now() - firstAt) : 0),
    /**
     * Show what has changed; called at most once a frame.
     * @param {string[]} won what the lane was the first in @param {number} part of the longest answer so far
     */
    paint(won, part) {
      if (emptied) empty();
      emptied = false;
      if (thoughts) thought.appendData(thoughts);
      if (thoughts && !all && reasoning.hidden) reasoning.open = true;
      if (waiting && !all) reasoning.open = false;
      if (waiting) show(waiting);
      if (!self.live && view && !ended) view.end();
      ended ||= !self.live;
      reasoning.hidden = !thought.data;
      waiting = thoughts = "";
      if (root.dataset.state !== state) root.dataset.state = state;
      bar.style.transform = `scaleX(${part.toFixed(4)})`;
      stop.hidden = !self.live;
      keep.hidden = self.live || !all;
      put(figures, said());
      const flags = won.join(" · ");
      if (badges.textContent !== flags) badges.replaceChildren(...won.map((one) => make("span", { class: "badge" }, one)));
    },
  };

  /** @param {import("../client.js").Run} next */
  async function fill(next) {
    run = next;
    began = performance.now();
    emptied = true;
    waiting = thoughts = "";
    pieces = firstAt = endedAt = rate = 0;
    become("waiting", "asked");
    try {
      for await (const event of next.events()) happened(event);
      const result = await next.result;
      rate = result.timing.tokens_per_second;
      pieces = result.usage.completion_tokens || pieces;
      endedAt = performance.now();
      const cut = result.finishReason === "length" ? "cut at the limit" : "";
      become(result.finishReason === "cancelled" ? "stopped" : "done", cut);
    } catch (error) {
      endedAt = performance.now();
      const { code, message } = /** @type {import("../client.js").GatewayError} */ (error);
      become("failed", code ? `${code}: ${message}` : message);
    }
    run = null;
    hooks.dirty();
  }

  function empty() {
    view?.clear();
    text.replaceChildren();
    const plain = form.input.value !== "text";
    text.classList.toggle("markdown", !plain);
    view = plain ? null : createView(text);
    all = thought.data = "";
    ended = false;
  }

  /** @param {string} more */
  function show(more) {
    all += more;
    if (!view) return text.append(more);
    view.write(more);
    view.paint();
  }

  function said() {
    if (state === "ready") return "";
    if (state === "waiting" || state === "reading" || state === "failed") return note;
    const { first, end } = self.times();
    const parts = [
      `first ${Math.round(first)} ms`,
      self.rate() ? `${Math.round(self.rate())} tok/s` : "",
      `${pieces} ${pieces === 1 ? "token" : "tokens"}`,
      end ? `${(end / 1000).toFixed(end < 10_000 ? 2 : 1)} s` : "",
      state === "stopped" ? "stopped" : note,
    ];
    return parts.filter(Boolean).join(" · ");
  }

  self.offer();
  return self;
}

/** @param {string} label @param {Record<string, string>} attributes */
function field(label, attributes) {
  const input = make("input", attributes);
  return { input, label: make("label", {}, make("span", {}, label), input) };
}

/** @param {string} label @param {string[][]} options @param {string} chosen */
function picker(label, options, chosen) {
  const input = make("select", {}, ...options.map(([value, text]) => new Option(text, value)));
  input.value = chosen;
  return { input, label: make("label", {}, make("span", {}, label), input) };
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
