// @ts-check
/** Tools on the demo page: its own functions, the user's functions, and calls that the user answers. */

/** @typedef {import("../tool_loop.js").Tool} Tool */
/** @typedef {import("../client.js").ToolCall} ToolCall */

/** @param {string} what */
const twoNumbers = (what) => ({
  type: "object",
  properties: { a: { type: "number", description: what }, b: { type: "number", description: what } },
  required: ["a", "b"],
});

/** The page's own functions. Small models read results with a name best. @type {Tool[]} */
const OWN = [
  {
    name: "add",
    description: "Add two numbers.",
    parameters: twoNumbers("a summand"),
    run: ({ a, b }) => ({ result: Number(a) + Number(b) }),
  },
  {
    name: "multiply",
    description: "Multiply two numbers.",
    parameters: twoNumbers("a factor"),
    run: ({ a, b }) => ({ result: Number(a) * Number(b) }),
  },
];

/**
 * Return the tools that a user wrote as JSON: one definition or a list, flat or in OpenAI's nested form.
 * Throws an Error that says what is wrong.
 * @param {string} text JSON
 * @returns {Tool[]}
 */
export function parseTools(text) {
  if (!text.trim()) return [];
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${/** @type {Error} */ (error).message}`);
  }
  return [given].flat().map(definitionOf);
}

/** @param {any} tool @param {number} index @returns {Tool} */
export function definitionOf(tool, index) {
  const inner = tool?.function ?? tool;
  if (typeof inner?.name !== "string" || !inner.name) throw new Error(`tool ${index + 1} needs a "name"`);
  return { name: inner.name, description: inner.description, parameters: inner.parameters };
}

/**
 * Return the tools of a conversation.
 * @param {boolean} own whether the page's own functions are among them
 * @param {Tool[]} users those that the user answers
 * @param {Tool[]} functions those that the user has written
 */
export function toolsOf(own, users, functions) {
  return [...(own ? OWN : []), ...users, ...functions];
}

/**
 * Return the tools with a `run` each: tools without a function ask the user what they return.
 * @param {Tool[]} tools
 * @param {(call: ToolCall, signal: AbortSignal) => Promise<string>} ask
 * @returns {Tool[]}
 */
export function answeredBy(tools, ask) {
  return tools.map((tool) => ({ run: (_, { call, signal }) => ask(call, signal), ...tool }));
}

/**
 * Return the functions that show a call on the page while it is received, and ask for its result.
 * @param {HTMLElement} root a copy of the template
 */
export function createCard(root) {
  /** @param {string} selector */
  const find = (selector) => /** @type {any} */ (root.querySelector(selector));
  const form = find("form");
  const input = find("input");

  return {
    /** Whether the call has ended; then a call with the same index is another one. */
    closed: false,
    /** @param {ToolCall} call */
    show(call) {
      find(".name").textContent = call.name || (call.error ? "" : "…");
      find(".arguments").textContent = call.arguments;
      if (!call.error) return;
      this.closed = true;
      root.classList.add("broken");
      const what = call.error === "cut_off" ? "This tool call was cut off" : "This tool call is malformed";
      find(".returned").textContent = `${what}: ${call.text ?? ""}`;
    },
    /** @param {string} content */
    returned(content) {
      this.closed = true;
      form.hidden = true;
      find(".returned").textContent = content;
    },
    /**
     * Ask the user what the tool returns.
     * @param {AbortSignal} signal
     * @param {boolean} focus whether to move the focus there
     * @returns {Promise<string>}
     */
    ask(signal, focus) {
      form.hidden = false;
      if (focus) input.focus();
      return new Promise((resolve, reject) => {
        form.addEventListener("submit", (/** @type {Event} */ event) => {
          event.preventDefault();
          resolve(input.value);
        });
        signal.addEventListener("abort", () => {
          form.hidden = true;
          reject(new Error("stopped"));
        });
      });
    },
  };
}
