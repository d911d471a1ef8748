// @ts-check
/** The settings: what their form says, as options of a generation. */

import { find } from "./dom.js";
import { parseTools, toolsOf } from "./tools.js";

/** How many other tokens are asked for beside each, to show what the model might have said. */
const ALTERNATIVES = 3;

/**
 * The forms that need a text, by the names that the protocol has for them.
 * @type {Record<string, {label: string, example: string, read: (text: string) => object}>}
 */
const FORMS = {
  json_schema: {
    label: "Schema",
    example: '{"type": "object", "properties": {"city": {"type": "string"}}}',
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

/** What was typed for each kind of form, for who comes back to it. @type {Record<string, string>} */
const drafts = {};
let shownForm = "text";

/** Let the form say what is wrong with what is typed into it, and show what belongs together. */
export function watchSettings() {
  find("#temperature").addEventListener("input", showTemperature);
  find("#tools").addEventListener("input", checkTools);
  find("#calculator").addEventListener("change", showAnswers);
  find("#form").addEventListener("change", showForm);
  find("#form-text").addEventListener("input", checkForm);
}

/**
 * What the settings say, as options of a generation. Null if there is something wrong with the form
 * of the answer: then the user sees it, and nothing ought to be sent.
 */
export function chosenOptions() {
  const form = checkForm();
  if (form instanceof Error) {
    if (!find("#settings").matches(":popover-open")) find("#settings").showPopover();
    find("#form-text").focus();
    return null;
  }
  const seed = find("#seed").value;
  const system = find("#system").value.trim();
  const answers = hasTools() ? 1 : Number(find("#answers").value);
  return {
    temperature: Number(find("#temperature").value),
    max_tokens: Math.max(1, Number(find("#max-tokens").value) || 1024),
    ...(seed === "" ? {} : { seed: Number(seed) }),
    ...(system ? { system_prompt: system } : {}),
    ...(form ? { response_format: form } : {}),
    ...(answers > 1 ? { n: answers } : {}),
    ...(find("#sureness").checked ? { logprobs: true, top_logprobs: ALTERNATIVES } : {}),
    ...(find("#thinking").checked ? { enable_thinking: true } : {}),
    ...(find("#models").hidden ? {} : { model: find("#models").value }),
  };
}

/**
 * The tools of a conversation, the page's and the user's.
 * @param {Parameters<typeof toolsOf>[2]} ask
 */
export function chosenTools(ask) {
  return toolsOf(find("#calculator").checked, usersTools(), ask);
}

function hasTools() {
  return find("#calculator").checked || usersTools().length > 0;
}

/** The tools that the user has written; what is wrong with them is said. */
function usersTools() {
  const wrong = find("#tools-wrong");
  wrong.textContent = "";
  try {
    return parseTools(find("#tools").value);
  } catch (error) {
    wrong.textContent = /** @type {Error} */ (error).message;
    return [];
  }
}

function checkTools() {
  usersTools();
  showAnswers();
}

/** With tools a conversation goes on from each call, so there can be no second answer beside it. */
function showAnswers() {
  const tools = hasTools();
  find("#answers").disabled = tools;
  find("#answers-hint").hidden = !tools;
}

function showTemperature() {
  find("#temperature-shown").textContent = Number(find("#temperature").value).toFixed(1);
}

/** Show the field that goes with the kind of form, with what was typed into it before. */
function showForm() {
  const field = find("#form-text");
  drafts[shownForm] = field.value;
  shownForm = find("#form").value;
  const form = FORMS[shownForm];
  find("#form-field").hidden = !form;
  find("#form-wrong").textContent = "";
  field.value = drafts[shownForm] ?? "";
  if (!form) return;
  find("#form-label").textContent = form.label;
  field.placeholder = form.example;
}

/** The form that the answer is to have, if any; an Error, which is said, if it is none. */
function checkForm() {
  const type = find("#form").value;
  const wrong = find("#form-wrong");
  wrong.textContent = "";
  if (type === "text") return null;
  try {
    return { type, ...FORMS[type]?.read(find("#form-text").value) };
  } catch (error) {
    wrong.textContent = /** @type {Error} */ (error).message;
    return /** @type {Error} */ (error);
  }
}

/** @param {string} text */
const trimmed = (text) => text.trim();

/** @param {string} text @param {string} what is to be given */
function filled(text, what) {
  if (!text.trim()) throw new Error(`give ${what}`);
  return text;
}

/** @param {string} text */
function parseSchema(text) {
  let schema;
  try {
    schema = JSON.parse(filled(text, "a schema"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Error(`not JSON: ${error.message}`);
  }
  if (schema === null || Array.isArray(schema) || !["object", "boolean"].includes(typeof schema))
    throw new Error('a schema is an object, as {"type": "object"}');
  return schema;
}
