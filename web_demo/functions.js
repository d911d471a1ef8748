// @ts-check
/**
 * Functions that the user writes for a model to call. Each call has a thread of its own: it can't
 * reach the page or its token, keeps nothing, and a function that does not end can be stopped.
 */

import { definitionOf } from "./tools.js";

const THREAD = "/functions_worker.js"; // the one file of the page that may run what is in no file
const DEFINING_MS = 3000; // to say what there is: there is nothing to wait for

/**
 * The tools that a text of JavaScript is, one or a list, each with its `run`.
 * Rejects with an Error that says what is wrong.
 * @param {string} code
 * @returns {Promise<import("./client.js").Tool[]>}
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
 * Rejects with a text.
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
