// @ts-check
/** Every setting of an answer: its name on the page, its bounds, and what leaves it alone. No I/O. */

/**
 * `option` is the setting's name in the protocol, shown small beside its label. `brief` says it on a chip.
 * @typedef {{id: string, label: string, group: string, option: string, hint?: string, needs?: "tools" | "thinking"}} About
 * @typedef {About & (
 *   {kind: "text" | "lines" | "code", fallback: string, example: string, rows: number, brief: (value: string) => string}
 *   | {kind: "range" | "number", fallback: number, least: number, most: number, step: number, brief: (value: number) => string}
 *   | {kind: "maybe", fallback: null, least: number, most: number, step: number, example: string, brief: (value: number) => string}
 *   | {kind: "choice", fallback: string, choices: Record<string, string>, brief: (value: string) => string}
 *   | {kind: "check", fallback: boolean, brief: () => string}
 * )} Setting a number that "maybe" is set is null where it is not
 */

export const GROUPS = {
  answer: "How it answers",
  form: "What an answer may be",
  tools: "What it can call",
  inside: "Looking inside",
  fine: "Fine tuning",
};

const MOST_TEXT = 34; // characters of a text on a chip

/** @param {string} text */
function short(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > MOST_TEXT ? `${line.slice(0, MOST_TEXT - 1).trimEnd()}…` : line;
}

/** @type {Record<string, string>} */
const FORMS = {
  text: "Free text",
  json_object: "JSON",
  json_schema: "JSON of a schema",
  regex: "A pattern (regular expression)",
  choice: "One of a list",
  lark: "A grammar (Lark)",
};

/** @type {Setting[]} */
export const SETTINGS = [
  {
    id: "system", label: "Instructions", group: "answer", option: "system_prompt", kind: "text", fallback: "", rows: 3,
    example: "Your name is Marlo.", hint: "The model reads them before every conversation.",
    brief: (value) => `“${short(value)}”`,
  },
  {
    id: "temperature", label: "Creativity", group: "answer", option: "temperature", kind: "range", fallback: 0.7,
    least: 0, most: 1.5, step: 0.1, hint: "At 0 it always takes the likeliest word; above 1 it surprises.",
    brief: (value) => `Creativity ${value.toFixed(1)}`,
  },
  {
    id: "max_tokens", label: "Longest answer", group: "answer", option: "max_tokens", kind: "number", fallback: 1024,
    least: 1, most: 131_072, step: 1, hint: "In tokens; 100 tokens are about 75 English words.",
    brief: (value) => `At most ${value.toLocaleString("en")} tokens`,
  },
  {
    id: "seed", label: "Repeatable", group: "answer", option: "seed", kind: "maybe", fallback: null, least: 0,
    most: Number.MAX_SAFE_INTEGER, step: 1, example: "by chance",
    hint: "With the same number, the same question gets the same answer.", brief: (value) => `Seed ${value}`,
  },
  {
    id: "thinking", label: "Thinks first", group: "answer", option: "enable_thinking", kind: "choice", fallback: "",
    choices: { "": "As the model is made", yes: "Yes", no: "No" }, needs: "thinking",
    brief: (value) => (value === "yes" ? "Thinks first" : "Doesn't think first"),
  },
  {
    id: "answers", label: "Answers to choose from", group: "answer", option: "n", kind: "choice", fallback: "1",
    choices: { 1: "1", 2: "2", 3: "3", 4: "4" }, brief: (value) => `${value} answers`,
  },
  {
    id: "form", label: "Form", group: "form", option: "response_format", kind: "choice", fallback: "text", choices: FORMS,
    brief: (value) => ({ json_object: "JSON", json_schema: "JSON of a schema", regex: "A pattern", choice: "One of a list", lark: "A grammar" })[value] ?? value,
  },
  {
    id: "stop", label: "Ends before", group: "form", option: "stop", kind: "lines", fallback: "", rows: 2, example: "The end.",
    hint: "One text a line. \\n stands for the end of a line.", brief: (value) => `Ends before “${short(value)}”`,
  },
  {
    id: "calculator", label: "Calculator", group: "tools", option: "tools", kind: "check", fallback: false, needs: "tools",
    hint: "Functions of this page that add and multiply.", brief: () => "Calculator",
  },
  {
    id: "functions", label: "Functions that you write", group: "tools", option: "JavaScript", kind: "code", fallback: "", rows: 3,
    example: '{name: "get_weather", description: "Tell the weather in a city.", parameters: {type: "object", properties: {city: {type: "string"}}}, run: async ({city}) => ({sky: "rainy"})}',
    hint: "They run in this browser, and may fetch from other sites.", needs: "tools", brief: () => "Your functions",
  },
  {
    id: "tools", label: "Calls that you answer by hand", group: "tools", option: "JSON", kind: "code", fallback: "", rows: 3,
    example: '{"name": "get_weather", "description": "Tell the weather in a city.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}',
    needs: "tools", brief: () => "Calls answered by hand",
  },
  {
    id: "tool_choice", label: "When it calls", group: "tools", option: "tool_choice", kind: "choice", fallback: "auto",
    choices: { auto: "When it wants to", required: "At least once", none: "Never" }, needs: "tools",
    brief: (value) => (value.startsWith("=") ? `Calls ${value.slice(1)}` : value === "none" ? "Calls nothing" : "Calls at least once"),
  },
  {
    id: "sureness", label: "Show how sure it was of each word", group: "inside", option: "logprobs", kind: "check", fallback: false,
    hint: "Point at a word to see what else it might have said.", brief: () => "How sure",
  },
  {
    id: "top_p", label: "Only the likeliest words, up to this share", group: "fine", option: "top_p", kind: "maybe", fallback: null,
    least: 0.05, most: 1, step: 0.05, example: "1", brief: (value) => `Likeliest ${Math.round(100 * value)} %`,
  },
  {
    id: "top_k", label: "Only this many words to draw from", group: "fine", option: "top_k", kind: "maybe", fallback: null,
    least: 0, most: 100_000, step: 1, example: "all", brief: (value) => `Out of ${value} words`,
  },
  {
    id: "min_p", label: "No word this much rarer than the likeliest", group: "fine", option: "min_p", kind: "maybe", fallback: null,
    least: 0, most: 1, step: 0.05, example: "0", brief: () => "No rare words",
  },
  {
    id: "repetition_penalty", label: "Avoids repeating itself", group: "fine", option: "repetition_penalty", kind: "maybe",
    fallback: null, least: 0.05, most: 10, step: 0.05, example: "1", brief: (value) => `Repeats less (${value})`,
  },
  {
    id: "presence_penalty", label: "Avoids words that it has used", group: "fine", option: "presence_penalty", kind: "maybe",
    fallback: null, least: -2, most: 2, step: 0.1, example: "0", brief: (value) => `New words (${value})`,
  },
  {
    id: "frequency_penalty", label: "Avoids words that it uses often", group: "fine", option: "frequency_penalty", kind: "maybe",
    fallback: null, least: -2, most: 2, step: 0.1, example: "0", brief: (value) => `Frequent words less (${value})`,
  },
  {
    id: "max_reasoning_tokens", label: "Longest thinking, in tokens", group: "fine", option: "max_reasoning_tokens", kind: "maybe",
    fallback: null, least: 0, most: 131_072, step: 1, example: "as the model likes", needs: "thinking",
    brief: (value) => `Thinks for ${value} tokens at most`,
  },
  {
    id: "biases", label: "Likelier and rarer tokens", group: "fine", option: "logit_bias", kind: "code", fallback: "", rows: 1,
    example: '{"10": -5}', hint: "Numbers by token id, as JSON.", brief: () => "Biases",
  },
  {
    id: "variables", label: "Values for the chat template", group: "fine", option: "chat_template_kwargs", kind: "code", fallback: "",
    rows: 1, example: '{"reasoning_effort": "low"}', hint: "An object, as JSON.", brief: () => "Template values",
  },
];

/**
 * Sets of values under a name. A preset leaves alone what it doesn't name, but for the settings of SAMPLING, which
 * go back to what they are by themselves.
 * @type {{name: string, says: string, values: Record<string, any>}[]}
 */
export const PRESETS = [
  { name: "Balanced", says: "as the page begins", values: { temperature: 0.7 } },
  { name: "Precise", says: "always the likeliest word", values: { temperature: 0 } },
  { name: "Creative", says: "takes rarer words too", values: { temperature: 1.2, min_p: 0.05 } },
  { name: "Data", says: "answers are JSON", values: { temperature: 0, form: "json_object" } },
  { name: "Thinker", says: "thinks before it answers", values: { temperature: 0.6, thinking: "yes" } },
];

/** The settings that a preset decides. */
export const SAMPLING = [
  "temperature", "form", "thinking", "top_p", "top_k", "min_p",
  "repetition_penalty", "presence_penalty", "frequency_penalty",
];
