// @ts-check
/**
 * A thread on which the user's functions run; see functions.js. It is served with a security policy of
 * its own, that lets it run a text and fetch what others let it, and nothing else.
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
