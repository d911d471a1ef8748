// @ts-check
/** What a person writes to hold an answer to a form, and other settings with a syntax of their own. No I/O. */

/**
 * The forms that need a text, by their `type` in the protocol.
 * @type {Record<string, {label: string, example: string, read: (text: string) => object}>}
 */
export const CONSTRAINTS = {
  json_schema: {
    label: "Schema",
    example:
      '{"type": "object", "properties": {"city": {"type": "string"}}, ' +
      '"required": ["city"], "additionalProperties": false}',
    read: (text) => ({ schema: parseSchema(text) }),
  },
  regex: {
    label: "Pattern",
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

/** Return what an answer is held to, null if it is free. Throws an Error that says what is wrong. @param {string} type @param {string} text */
export function constraintOf(type, text) {
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
export function parseBiases(text) {
  if (!text.trim()) return null;
  const biases = parseJson(text);
  if (!isObject(biases) || Object.values(biases).some((bias) => typeof bias !== "number"))
    throw new Error('biases are numbers by token id, such as {"10": -5}');
  return biases;
}

/** @param {string} text */
export function parseVariables(text) {
  if (!text.trim()) return null;
  const variables = parseJson(text);
  if (!isObject(variables)) throw new Error('variables are an object, such as {"reasoning_effort": "low"}');
  return variables;
}

/** @param {any} value */
function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}
