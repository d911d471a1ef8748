// @ts-check
/** The values of the settings: read again, held to what a server offers, and as options of a request. No I/O. */

import { parseBiases, parseVariables, constraintOf, CONSTRAINTS } from "./constraints.js";
import { PRESETS, SAMPLING, SETTINGS } from "./table.js";

/**
 * @typedef {Record<string, any> & {texts: Record<string, string>}} Values by the ids of the settings; `texts` is what
 *   was typed for each form that needs a text
 * @typedef {{
 *   id: string, context_window?: number | null, loaded?: boolean, vision?: boolean | null, tools?: boolean | null,
 *   thinking?: boolean | null, base?: string | null,
 * }} Model what the server says of one; null is unknown, as long as it isn't loaded
 * @typedef {{model: Model | null, longest: number, several?: boolean}} Offer what a server gives: the chosen model, the
 *   longest answer in tokens, and whether there are other models
 */

/** The number of likeliest tokens that are requested for each token of the answer. */
const ALTERNATIVES = 3;
const MOST_TEXT = 200_000; // characters of one field

/** @type {Offer} */
export const ANYTHING = { model: null, longest: Infinity };

/** Return the values of a first visit. @returns {Values} */
export function usual() {
  return { ...Object.fromEntries(SETTINGS.map(({ id, fallback }) => [id, fallback])), texts: {} };
}

/** Return values that were kept, each one that is none any more as on a first visit. @param {any} kept @returns {Values} */
export function restored(kept) {
  const values = usual();
  if (kept === null || typeof kept !== "object") return values;
  for (const setting of SETTINGS) if (isValue(setting, kept[setting.id])) values[setting.id] = kept[setting.id];
  for (const name of Object.keys(CONSTRAINTS)) {
    const text = kept.texts?.[name];
    if (typeof text === "string" && text.length <= MOST_TEXT) values.texts[name] = text;
  }
  return values;
}

/** Whether something is a value that a setting can have. @param {import("./table.js").Setting} setting @param {unknown} value */
export function isValue(setting, value) {
  switch (setting.kind) {
    case "check":
      return typeof value === "boolean";
    case "choice":
      return typeof value === "string" && (Object.hasOwn(setting.choices, value) || (setting.id === "tool_choice" && /^=./.test(value)));
    case "range":
    case "number":
      return isWithin(setting, value);
    case "maybe":
      return value === null || isWithin(setting, value);
    default:
      return typeof value === "string" && value.length <= MOST_TEXT;
  }
}

/** @param {{least: number, most: number, step: number}} bounds @param {unknown} value */
function isWithin({ least, most, step }, value) {
  if (typeof value !== "number" || !Number.isFinite(value) || value < least || value > most) return false;
  return step !== 1 || Number.isInteger(value);
}

/**
 * Return what is wrong with a typed number, or "" if nothing is.
 * @param {Extract<import("./table.js").Setting, {least: number}>} setting @param {string} text @param {Offer} offer
 */
export function wrongNumber(setting, text, { longest }) {
  if (!text.trim()) return setting.kind === "maybe" ? "" : "give a number";
  const value = Number(text);
  const most = setting.id === "max_tokens" ? Math.min(setting.most, longest) : setting.most;
  if (Number.isNaN(value)) return "give a number";
  if (value < setting.least || value > most) {
    const server = most < setting.most ? ", which this server allows" : "";
    return `from ${setting.least.toLocaleString("en")} to ${most.toLocaleString("en")}${server}`;
  }
  return isWithin(setting, value) ? "" : "a whole number";
}

/** Why a setting does nothing with a model, or "" if it does something. @param {import("./table.js").About} setting @param {Offer} offer */
export function idle({ needs }, { model }) {
  if (!model || !needs || model[needs] !== false) return "";
  return needs === "tools" ? "This model can't call tools." : "This model can't think aloud.";
}

/**
 * Return the settings that are not as on a first visit, with words for each.
 * @param {Values} values @param {Offer} [offer]
 * @returns {{id: string, text: string, idle: string}[]}
 */
export function changed(values, offer = ANYTHING) {
  return SETTINGS.filter(({ id, fallback }) => values[id] !== fallback).map((setting) => ({
    id: setting.id,
    text: /** @type {(value: any) => string} */ (setting.brief)(values[setting.id]),
    idle: idle(setting, offer),
  }));
}

/** Return values with those of a preset. @param {Values} values @param {Record<string, any>} preset @returns {Values} */
export function withPreset(values, preset) {
  const before = usual();
  const reset = Object.fromEntries(SAMPLING.map((id) => [id, before[id]]));
  return restored({ ...values, ...reset, ...preset, texts: { ...values.texts, ...preset.texts } });
}

/** Return the name of the preset that values are those of. @param {Values} values @param {{name: string, values: Record<string, any>}[]} [presets] */
export function presetOf(values, presets = PRESETS) {
  const is = (/** @type {Record<string, any>} */ preset) => {
    const applied = withPreset(values, preset);
    return SETTINGS.every(({ id }) => applied[id] === values[id]);
  };
  return presets.findLast((preset) => is(preset.values))?.name ?? null;
}

/** Return a line with its escapes `\n`, `\t` and `\\` replaced. @param {string} line */
function unescaped(line) {
  return line.replace(/\\([nt\\])/g, (_, sign) => ({ n: "\n", t: "\t" })[/** @type {"n"} */ (sign)] ?? sign);
}

/** @param {string} choice a mode of the protocol, or a tool's name after a `=` */
function toolChoice(choice) {
  if (!choice.startsWith("=")) return choice;
  return { type: "function", function: { name: choice.slice(1) } };
}

const NUMBERS = [
  "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_reasoning_tokens",
];

/**
 * Return the options of a request. Throws an Error where a text is wrong; `chosen` of state.js says which.
 * @param {Values} values @param {string[]} tools the names of those that the request has @param {Offer} [offer]
 */
export function optionsOf(values, tools, offer = ANYTHING) {
  const { temperature, max_tokens, seed, system, thinking, answers, tool_choice, sureness } = values;
  const constraint = constraintOf(values.form, values.texts[values.form] ?? "");
  const biases = parseBiases(values.biases);
  const variables = parseVariables(values.variables);
  const stop = values.stop.split("\n").filter(Boolean).map(unescaped);
  const choice = tools.includes(tool_choice.slice(1)) || !tool_choice.startsWith("=") ? tool_choice : "auto";
  const thinks = offer.model?.thinking !== false;
  const numbers = NUMBERS.filter((name) => values[name] !== null && (thinks || name !== "max_reasoning_tokens"));
  return {
    temperature,
    max_tokens: Math.min(max_tokens, offer.longest),
    ...(seed === null ? {} : { seed }),
    ...(system.trim() ? { system_prompt: system.trim() } : {}),
    ...(constraint ? { response_format: /** @type {any} */ (constraint) } : {}),
    ...(stop.length ? { stop } : {}),
    ...(Number(answers) > 1 && !tools.length ? { n: Number(answers) } : {}),
    ...(choice === "auto" || !tools.length ? {} : { tool_choice: /** @type {any} */ (toolChoice(choice)) }),
    ...(biases ? { logit_bias: biases } : {}),
    ...(variables ? { chat_template_kwargs: variables } : {}),
    ...(sureness ? { logprobs: true, top_logprobs: ALTERNATIVES } : {}),
    ...(thinking && thinks ? { enable_thinking: thinking === "yes" } : {}),
    ...(offer.several && offer.model ? { model: offer.model.id } : {}),
    ...Object.fromEntries(numbers.map((name) => [name, values[name]])),
  };
}
