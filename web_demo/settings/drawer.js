// @ts-check
/** The drawer with the settings: presets, what is known of the model, and a field for each setting. */

import { composes, find, make } from "../shell/dom.js";
import { CONSTRAINTS } from "./constraints.js";
import { factsOf } from "./models.js";
import { GROUPS, PRESETS, SETTINGS } from "./table.js";
import { idle, presetOf, wrongNumber } from "./values.js";

/** @typedef {import("./table.js").Setting} Setting */
/** @typedef {{root: HTMLElement, show: () => void, focus: () => void}} Field */

/** The groups that are folded until they are wanted. */
const FOLDED = ["fine"];

/** @param {HTMLElement} root @param {import("../shell/app.js").App} app */
export function open(root, { settings, models }) {
  /** @type {Map<string, Field>} */
  const fields = new Map(SETTINGS.map((setting) => [setting.id, fieldOf(setting, settings)]));
  const presets = make("div", { class: "presets", role: "group", "aria-label": "Presets" });
  const card = make("div", { class: "model-card" });
  const groups = Object.entries(GROUPS).map(([id, label]) => {
    const inside = SETTINGS.filter(({ group }) => group === id).map(({ id: name }) => fields.get(name)?.root ?? "");
    return FOLDED.includes(id)
      ? make("details", {}, make("summary", {}, label), ...inside)
      : make("fieldset", {}, make("legend", {}, label), ...inside);
  });
  root.append(
    make(
      "form",
      { class: "settings", submit: (/** @type {Event} */ event) => event.preventDefault() },
      card,
      presets,
      keeping(settings),
      ...groups,
      make("button", { type: "button", class: "quiet begin", click: () => settings.resetAll() }, "Everything as at first"),
    ),
  );
  settings.events.addEventListener("change", show);
  models.events.addEventListener("change", show);
  show();

  function show() {
    for (const field of fields.values()) field.show();
    showPresets();
    showCard();
  }

  function showPresets() {
    const chosen = presetOf(settings.values, settings.presets());
    const buttons = settings.presets().map(({ name, says, values }) => {
      const use = () => {
        settings.use(values);
        [...presets.querySelectorAll("button")].find((one) => one.dataset.name === name)?.focus();
      };
      const pressed = String(name === chosen);
      const made = make("button", { type: "button", class: "preset", "aria-pressed": pressed, title: says, click: use }, name);
      made.dataset.name = name;
      if (PRESETS.some((one) => one.name === name)) return made;
      const forget = make("button", { type: "button", class: "forget", "aria-label": `Forget the preset “${name}”`, click: () => settings.forget(name) }, "×");
      return make("span", { class: "own" }, made, forget);
    });
    presets.replaceChildren(...buttons);
  }

  function showCard() {
    const model = models.chosen();
    if (!model) return card.replaceChildren();
    const facts = factsOf(model).map(({ text, is }) => make("li", { class: is === false ? "no" : is ? "yes" : undefined }, text));
    card.replaceChildren(make("p", { class: "model-name" }, model.id), make("ul", { "aria-label": "What is known of the model" }, ...facts));
  }

  return {
    show: () => models.refresh(),
    hide: () => {},
    /** Show a setting, and let it be changed. @param {string} id */
    focus(id) {
      const field = fields.get(id);
      field?.root.closest("details")?.setAttribute("open", "");
      field?.focus();
      field?.root.scrollIntoView({ block: "center" });
    },
  };
}

/** Return what keeps the settings under a name. @param {import("./state.js").Settings} settings */
function keeping(settings) {
  const name = make("input", { "aria-label": "Name of the preset", placeholder: "Name", maxlength: 40, required: true, keydown: onKey });
  const form = make("div", { class: "keeping", hidden: true }, name, make("button", { type: "button", class: "quiet", click: keep }, "Keep"));
  const begin = make("button", { type: "button", class: "quiet begin", click: ask }, "Keep these as a preset…");

  function ask() {
    form.hidden = false;
    begin.hidden = true;
    name.value = "";
    name.focus();
  }

  function end() {
    form.hidden = true;
    begin.hidden = false;
    begin.focus();
  }

  function keep() {
    const given = name.value.trim();
    if (!given || PRESETS.some((one) => one.name === given)) return name.focus();
    settings.keepAs(given);
    end();
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (composes(event) || (event.key !== "Enter" && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") keep();
    else end();
  }

  return make("div", { class: "keep-preset" }, begin, form);
}

/** @param {Setting} setting @param {import("./state.js").Settings} settings @returns {Field} */
function fieldOf(setting, settings) {
  const { id, label, option, hint } = setting;
  const input = inputOf(setting, settings);
  const told = make("p", { class: "hint", id: `${id}-hint` }, hint ?? "");
  const wrong = make("p", { class: "wrong", id: `${id}-wrong`, role: "alert" });
  const about = make("p", { class: "hint idle", id: `${id}-idle` });
  input.element.setAttribute("aria-describedby", `${id}-hint ${id}-idle ${id}-wrong`);
  input.element.id = id;
  const name = make("label", { for: id }, label);
  const shown = make("output", { for: id });
  const head = setting.kind === "check" ? [input.element, name] : [name];
  const root = make(
    "div",
    { class: `field ${setting.kind}` },
    make("div", { class: "field-head" }, ...head, shown, make("code", { "aria-hidden": "true" }, option)),
    ...(setting.kind === "check" ? [] : [input.element]),
    ...(input.more ? [input.more] : []),
    told,
    about,
    wrong,
  );
  told.hidden = !hint;

  /** @param {string} text */
  function say(text) {
    if (wrong.textContent !== text) wrong.textContent = text; // screen readers repeat an alert that is set again
    input.element.toggleAttribute("aria-invalid", Boolean(text));
  }

  input.said = say;
  return {
    root,
    focus: () => (id === "form" && settings.values.form in CONSTRAINTS ? find("textarea", root) : input.element).focus(),
    show() {
      const value = settings.values[id];
      input.show(value);
      if (setting.kind === "range") shown.textContent = value.toFixed(1);
      const why = idleOf(setting, settings);
      about.textContent = why;
      about.hidden = !why;
    },
  };
}

/** @param {Setting} setting @param {import("./state.js").Settings} settings */
function idleOf(setting, { values, offer }) {
  const why = idle(setting, offer);
  if (why) return why;
  const calls = values.calculator || values.tools.trim() || values.functions.trim();
  if (setting.id === "answers" && calls) return "One with tools, because the model goes on after each call.";
  if (setting.id === "tool_choice" && !calls) return "There is nothing to call yet.";
  return "";
}

/**
 * @typedef {{
 *   element: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement, show: (value: any) => void, more?: HTMLElement,
 *   said: (text: string) => void,
 * }} Input `said` shows what is wrong; its owner sets it
 */

/** @param {Setting} setting @param {import("./state.js").Settings} settings @returns {Input} */
function inputOf(setting, settings) {
  switch (setting.kind) {
    case "check":
      return checkOf(setting, settings);
    case "choice":
      return choiceOf(setting, settings);
    case "range":
    case "number":
    case "maybe":
      return numberOf(setting, settings);
    default:
      return textOf(setting, settings);
  }
}

/** @param {Setting} setting @param {import("./state.js").Settings} settings @returns {Input} */
function checkOf({ id }, settings) {
  const element = make("input", { type: "checkbox", change: () => settings.change({ [id]: element.checked }) });
  return { element, show: (value) => (element.checked = value), said: () => {} };
}

/** @param {Extract<Setting, {least: number}>} setting @param {import("./state.js").Settings} settings @returns {Input} */
function numberOf(setting, settings) {
  const { id, kind, least, most, step } = setting;
  const type = kind === "range" ? "range" : "number";
  const placeholder = kind === "maybe" ? setting.example : undefined;
  const bounds = kind === "range" ? { min: least, max: most } : { inputmode: step === 1 ? "numeric" : "decimal" };
  const element = make("input", { type, ...bounds, step: kind === "range" ? step : "any", placeholder, input: read, blur: giveUp });
  /** @type {Input} */
  const made = { element, show, said: () => {} };

  /** Show the value that is in effect, if what was typed is none. */
  function giveUp() {
    const value = settings.values[id];
    if (element.validity.badInput || wrongNumber(setting, element.value, settings.offer)) element.value = value ?? "";
    made.said("");
  }

  function read() {
    const wrong = element.validity.badInput ? "give a number" : wrongNumber(setting, element.value, settings.offer);
    made.said(wrong);
    if (!wrong) settings.change({ [id]: element.value.trim() ? Number(element.value) : null });
  }

  /** @param {number | null} value */
  function show(value) {
    const same = element.value.trim() ? Number(element.value) === value : value === null;
    if (document.activeElement === element && element.value !== "") return; // it is being typed
    if (!same) element.value = value === null ? "" : String(value);
  }

  return made;
}

/** @param {Extract<Setting, {rows: number}>} setting @param {import("./state.js").Settings} settings @returns {Input} */
function textOf({ id, kind, rows, example }, settings) {
  const element = make("textarea", { rows, placeholder: example, spellcheck: kind === "text" ? undefined : "false", input: read });
  /** @type {Input} */
  const made = { element, show, said: () => {} };

  async function read() {
    settings.change({ [id]: element.value });
    await check();
  }

  async function check() {
    if (!settings.readable.includes(id)) return;
    const given = settings.values[id];
    const value = await settings.read(id);
    // A text that was edited meanwhile has its own check.
    if (settings.values[id] === given) made.said(value instanceof Error ? value.message : "");
  }

  /** @param {string} value */
  function show(value) {
    if (element.value === value) return;
    element.value = value;
    check();
  }

  return made;
}

/** @param {Extract<Setting, {kind: "choice"}>} setting @param {import("./state.js").Settings} settings @returns {Input} */
function choiceOf(setting, settings) {
  const { id, choices } = setting;
  const element = make("select", { change: () => settings.change({ [id]: element.value }) });
  /** @type {Input} */
  const made = { element, show, said: () => {} };
  const text = make("textarea", { id: "form-text", rows: 4, spellcheck: "false", "aria-describedby": "form-wrong", input: write });
  const name = make("label", { for: "form-text" });
  if (id === "form") made.more = make("div", { class: "form-text" }, name, text);
  let shown = ""; // the names of the tools that can be chosen
  element.append(...options(choices));

  function write() {
    settings.change({ texts: { [settings.values.form]: text.value } });
    check();
  }

  async function check() {
    const { form, texts } = settings.values;
    const value = await settings.read("form");
    if (settings.values.form === form && settings.values.texts[form] === texts[form])
      made.said(value instanceof Error ? value.message : "");
  }

  /** @param {string} value */
  function show(value) {
    if (id === "tool_choice") offerTools();
    if (id === "answers") element.disabled = Boolean(idleOf(setting, settings));
    element.value = value;
    if (element.selectedIndex < 0) element.selectedIndex = 0;
    if (made.more) showText(value);
  }

  /** @param {string} form */
  function showText(form) {
    const constraint = CONSTRAINTS[form];
    const had = made.more?.hidden === false && name.textContent === constraint?.label;
    if (made.more) made.more.hidden = !constraint;
    if (!constraint) return made.said("");
    const typed = settings.values.texts[form] ?? "";
    name.textContent = constraint.label;
    text.placeholder = constraint.example;
    if (text.value !== typed) text.value = typed;
    if (!had) made.said("");
  }

  async function offerTools() {
    const tools = (await settings.tools()).map((tool) => tool.name);
    const names = tools.join("\n");
    element.disabled = !tools.length;
    if (names === shown) return;
    shown = names;
    element.replaceChildren(...options({ ...choices, ...Object.fromEntries(tools.map((one) => [`=${one}`, `Always ${one}`])) }));
    element.value = settings.values[id];
    if (element.selectedIndex < 0) element.selectedIndex = 0;
  }

  return made;
}

/** @param {Record<string, string>} choices */
const options = (choices) => Object.entries(choices).map(([value, label]) => new Option(label, value));
