// @ts-check
/**
 * The thread on which a function of the user runs; see functions.js. It is served with a security
 * policy of its own, which allows running code from a text and fetching from other sites.
 */

onmessage = async ({ data: { code, index, args } }) => {
  try {
    const tools = [new Function(`return (${code}\n)`)()].flat();
    const value = index === undefined ? tools.map(described) : await tools[index].run(args);
    postMessage({ value: JSON.parse(JSON.stringify(value) ?? "null") });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};

/** @param {any} tool @param {number} index */
function described(tool, index) {
  if (typeof tool?.run !== "function") throw new Error(`tool ${index + 1} needs a function "run"`);
  return tool;
}
