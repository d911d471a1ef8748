// @ts-check
/** The settings on the page, as options of a generation. */

import { find } from "../shell/dom.js";
import { functionsOf } from "../tools/functions.js";
import { parseTools, toolsOf } from "../tools/tools.js";

/** The number of likeliest tokens that are requested for each token of the answer. */
const ALTERNATIVES = 3;

/**
 * The constraints on an answer that need a text, by their `type` in the protocol.
 * @type {Record<string, {label: string, example: string, read: (text: string) => object}>}
 */
const CONSTRAINTS = {
  json_schema: {
    label: "Schema",
    example:
      '{"type": "object", "properties": {"city": {"type": "string"}}, ' +
      '"required": ["city"], "additionalProperties": false}',
    read: (text) => ({ schema: parseSchema(text) }),
  },
  regex: {
    label: "Regular expression",
    example: "[A-Z][a-z]+, [0-9]{1,3} years old",
    read: (text) => ({ regex: filled(text, "an expression") }),
  },
  choice: {
    label: "List, one choice a line",
    example: "yes\nno",
    read: (text) => ({ choices: filled(text, "a choice").split("\n").map(trimmed).filter(Boolean) }),
  },
  lark: {
    label: "Grammar",
    example: 'start: "yes" | "no, " /[a-z ]+/',
    read: (text) => ({ grammar: filled(text, "a grammar") }),
  },
};

/** What was typed for each kind of constraint, shown again when it is chosen again. @type {Record<string, string>} */
const drafts = {};
let shownConstraint = "text";

/**
 * The functions that read the fields whose text may be wrong, in the fields' order on the page.
 * @type {Record<string, (text: string) => any>}
 */
const FIELDS = {
  "#form-text": readConstraint,
  "#tools": parseTools,
  "#functions": functionsOf,
  "#biases": parseBiases,
  "#variables": parseVariables,
};

/** Check the fields while they are edited, and show or hide fields that depend on others. */
export function watchSettings() {
  find("#temperature").addEventListener("input", showTemperature);
  find("#form").addEventListener("change", showConstraint);
  for (const field of Object.keys(FIELDS)) find(field).addEventListener("input", () => check(field));
  for (const field of ["#tools", "#functions", "#calculator"]) find(field).addEventListener("input", showTools);
}

/**
 * Return the options of a generation and its tools; null if a field is wrong. The user then sees the
 * error, and nothing must be sent.
 */
export async function chosen() {
  const read = await readFields();
  if (!read) return null;
  const [constraint, users, functions, biases, variables] = read;
  const tools = toolsOf(find("#calculator").checked, users, functions);
  const seed = find("#seed").value;
  const system = find("#system").value.trim();
  const thinking = find("#thinking").value;
  const stop = find("#stop").value.split("\n").filter(Boolean).map(unescaped);
  const answers = tools.length ? 1 : Number(find("#answers").value);
  const choice = tools.length ? find("#tool-choice").value : "auto";
  const options = {
    temperature: Number(find("#temperature").value),
    max_tokens: Math.max(1, Number(find("#max-tokens").value) || 1024),
    ...(seed === "" ? {} : { seed: Number(seed) }),
    ...(system ? { system_prompt: system } : {}),
    ...(constraint ? { response_format: constraint } : {}),
    ...(stop.length ? { stop } : {}),
    ...(answers > 1 ? { n: answers } : {}),
    ...(choice === "auto" ? {} : { tool_choice: toolChoice(choice) }),
    ...(biases ? { logit_bias: biases } : {}),
    ...(variables ? { chat_template_kwargs: variables } : {}),
    ...(find("#sureness").checked ? { logprobs: true, top_logprobs: ALTERNATIVES } : {}),
    ...(thinking ? { enable_thinking: thinking === "yes" } : {}),
    ...(find("#models").hidden ? {} : { model: find("#models").value }),
    ...numbers(),
  };
  return { options, tools };
}

/** Return the values of all fields; null, after showing the error, if one of them is wrong. */
async function readFields() {
  const read = [];
  for (const field of Object.keys(FIELDS)) {
    const value = await check(field);
    if (value instanceof Error) {
      if (!find("#settings").matches(":popover-open")) find("#settings").showPopover();
      find(field).closest("details")?.setAttribute("open", "");
      find(field).focus();
      return null;
    }
    read.push(value);
  }
  return read;
}

/** Return a field's value, or an Error, which is shown beside the field. @param {string} selector */
async function check(selector) {
  const field = find(selector);
  const text = field.value;
  let value;
  try {
    value = await FIELDS[selector](text);
  } catch (error) {
    value = /** @type {Error} */ (error);
  }
  const wrong = find(`#${field.getAttribute("aria-describedby")}`);
  const said = value instanceof Error ? value.message : "";
  // A text that was edited meanwhile has its own check. Screen readers repeat an alert that is set again.
  if (field.value === text && wrong.textContent !== said) wrong.textContent = said;
  return value;
}

/** Return the numbers that are set; empty fields leave the defaults. */
function numbers() {
  const given = [...document.querySelectorAll("[data-option]")].map((field) => {
    const { dataset, value } = /** @type {HTMLInputElement} */ (field);
    return [dataset.option, value];
  });
  return Object.fromEntries(given.filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
}

/** @param {string} choice a mode of the protocol, or a tool's name after a `=` */
function toolChoice(choice) {
  if (!choice.startsWith("=")) return choice;
  return { type: "function", function: { name: choice.slice(1) } };
}

/** Return a line with its escapes `\n`, `\t` and `\\` replaced. @param {string} line */
function unescaped(line) {
  return line.replace(/\\([nt\\])/g, (_, sign) => ({ n: "\n", t: "\t" })[/** @type {"n"} */ (sign)] ?? sign);
}

/**
 * Show what depends on whether there are tools. With tools, a conversation continues after each
 * call, so it can have one answer only. Without tools, there is no choice between them.
 */
async function showTools() {
  const [users, functions] = await Promise.all([check("#tools"), check("#functions")]);
  const given = [users, functions].map((tools) => (tools instanceof Error ? [] : tools));
  const tools = toolsOf(find("#calculator").checked, given[0], given[1]);
  find("#answers").disabled = tools.length > 0;
  find("#answers-hint").hidden = !tools.length;
  const choice = find("#tool-choice");
  const before = choice.value;
  choice.disabled = !tools.length;
  for (const named of choice.querySelectorAll("[value^='=']")) named.remove();
  choice.append(...tools.map(({ name }) => new Option(name, `=${name}`)));
  choice.value = before;
  if (choice.selectedIndex < 0) choice.value = "auto";
}

function showTemperature() {
  find("#temperature-shown").textContent = Number(find("#temperature").value).toFixed(1);
}

/** Show the field of the chosen kind of constraint, with what was typed into it before. */
function showConstraint() {
  const field = find("#form-text");
  drafts[shownConstraint] = field.value;
  shownConstraint = find("#form").value;
  const constraint = CONSTRAINTS[shownConstraint];
  find("#form-field").hidden = !constraint;
  find("#form-wrong").textContent = "";
  field.value = drafts[shownConstraint] ?? "";
  if (!constraint) return;
  find("#form-label").textContent = constraint.label;
  field.placeholder = constraint.example;
}

/** The constraint on the answer, null if there is none. @param {string} text */
function readConstraint(text) {
  const type = find("#form").value;
  return type === "text" ? null : { type, ...CONSTRAINTS[type]?.read(text) };
}

/** @param {string} text */
const trimmed = (text) => text.trim();

/** @param {string} text @param {string} what the expected text, for the error */
function filled(text, what) {
  if (!text.trim()) throw new Error(`give ${what}`);
  return text;
}

/** @param {string} text */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${/** @type {Error} */ (error).message}`);
  }
}

/** @param {string} text */
function parseSchema(text) {
  const schema = parseJson(filled(text, "a schema"));
  if (schema === null || Array.isArray(schema) || !["object", "boolean"].includes(typeof schema))
    throw new Error('a schema is an object, such as {"type": "object"}');
  return schema;
}

/** @param {string} text */
function parseBiases(text) {
  if (!text.trim()) return null;
  const biases = parseJson(text);
  if (!isObject(biases) || Object.values(biases).some((bias) => typeof bias !== "number"))
    throw new Error('biases are numbers by token id, such as {"10": -5}');
  return biases;
}

/** @param {string} text */
function parseVariables(text) {
  if (!text.trim()) return null;
  const variables = parseJson(text);
  if (!isObject(variables)) throw new Error('variables are an object, such as {"reasoning_effort": "low"}');
  return variables;
}

/** @param {any} value */
function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
