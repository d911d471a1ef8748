// @ts-check
/**
 * Functions that the user writes for the model to call. Each call runs on a new thread, so it can't
 * reach the page or its token, it keeps no state, and a function that does not end can be stopped.
 */

import { definitionOf } from "./tools.js";

const THREAD = "/tools/functions_worker.js"; // the only file of the page that may run code from a text
const DEFINING_MS = 3000; // time limit for evaluating the definitions

/**
 * Return the tools that a JavaScript expression defines: one tool or a list, each with a `run`.
 * Rejects with an Error that says what is wrong.
 * @param {string} code
 * @returns {Promise<import("../tool_loop.js").Tool[]>}
 */
export async function functionsOf(code) {
  if (!code.trim()) return [];
  const defined = await onThread({ code }, AbortSignal.timeout(DEFINING_MS)).catch((error) => {
    throw new Error(String(error));
  });
  return defined.map((/** @type {any} */ tool, /** @type {number} */ index) => ({
    ...definitionOf(tool, index),
    run: (/** @type {any} */ args, /** @type {{signal: AbortSignal}} */ { signal }) =>
      onThread({ code, index, args }, signal),
  }));
}

/**
 * Evaluate code on a new thread, and call a function of it if `index` is given. Rejects with a string.
 * @param {{code: string, index?: number, args?: any}} message
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
async function onThread(message, signal) {
  const worker = new Worker(THREAD);
  try {
    return await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => ("error" in data ? reject(data.error) : resolve(data.value));
      worker.onerror = (event) => reject(event.message || "this browser runs no functions here");
      signal.addEventListener("abort", () => reject("it was stopped before its end"));
      worker.postMessage(message);
    });
  } finally {
    worker.terminate();
  }
}
