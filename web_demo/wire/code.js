// @ts-check
/** The code of a program that makes a request of this page: JavaScript, React, Python, a shell. No I/O. */

/** Fields that the clients add by themselves. */
const OURS = new Set(["type", "id", "window", "resumable", "keep_on_close"]);

/** Return what a request asks for, in the order of its fields. @param {any} frame of `generate` */
export function asked(frame) {
  return Object.fromEntries(Object.entries(frame).filter(([name]) => !OURS.has(name)));
}

/** @param {any} frame @param {string} origin of the gateway, such as http://127.0.0.1:8765 */
export function javascript(frame, origin) {
  return `// In a page; a program imports it from "mlx-gateway-client".
import { connect } from "${origin}/client.js";

const client = connect("${origin}");
const run = client.generate(${js(asked(frame))});
for await (const { text } of run) console.log(text);
const { finishReason, usage } = await run.result;
`;
}

/** @param {any} frame @param {string} origin */
export function react(frame, origin) {
  return `import { useGateway, useRun } from "mlx-gateway-client/react";

const request = ${js(asked(frame))};

export default function Answer() {
  const { text, error, generate, stop } = useRun(useGateway("${origin}"));
  return (
    <>
      <button onClick={() => generate(request)}>Ask</button>
      <button onClick={stop}>Stop</button>
      <p>{error ? error.message : text}</p>
    </>
  );
}
`;
}

/** @param {any} frame @param {string} origin */
export function python(frame, origin) {
  const options = Object.entries(asked(frame)).map(([name, value]) => `            ${name}=${py(value, "            ")},\n`);
  return `import asyncio

from gateway.client import connect


async def main():
    async with connect("${origin}") as client:
        async with client.generate(
${options.join("")}        ) as run:
            async for chunk in run:
                print(chunk.text, end="", flush=True)


asyncio.run(main())
`;
}

/** @param {any} frame @param {string} origin */
export function shell(frame, origin) {
  return `# websocat is to WebSockets what curl is to HTTP; Ctrl-C ends it.
websocat -n ${origin.replace("http", "ws")}/v1/stream <<'END'
${JSON.stringify({ type: "generate", id: "1", ...asked(frame) })}
END
`;
}

/** @param {unknown} value */
const js = (value) => JSON.stringify(value, null, 2).replace(/^(\s*)"([a-z_]+)":/gm, "$1$2:");

/** @param {any} value @param {string} indent @returns {string} */
function py(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const parts = Array.isArray(value)
    ? value.map((one) => py(one, inner))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${py(one, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = `${open}${parts.join(", ")}${close}`;
  return line.length < 70 && !line.includes("\n") ? line : `${open}\n${parts.map((one) => `${inner}${one},\n`).join("")}${indent}${close}`;
}
