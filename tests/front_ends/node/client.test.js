/** The client on any Node from 20 on: GATEWAY=http://127.0.0.1:8765 node --test, against the tests' gateway. */
import { connect } from "mlx-gateway-client";
import { runTools } from "mlx-gateway-client/tools";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import { after, test } from "node:test";
import { WebSocket } from "ws";

const gateway = process.env.GATEWAY;
const options = globalThis.WebSocket ? {} : { WebSocket }; // Node has one since version 22
const client = connect(gateway, options);
const numbers = Array.from({ length: 20 }, (_, index) => `${index} `).join("");
const asking = (content) => ({ messages: [{ role: "user", content }] });

after(client.close);

test("text streams", async () => {
  const chunks = [];
  const run = client.generate(asking("numbers"));
  for await (const chunk of run) chunks.push(chunk.text);
  assert.equal(chunks.join(""), numbers);
  assert.ok(chunks.length > 1);
  assert.equal((await run.result).finishReason, "stop");
});

test("an AbortSignal stops the model", async () => {
  const controller = new AbortController();
  const run = client.generate({ ...asking("endless"), signal: controller.signal });
  const reading = async () => {
    for await (const _ of run) controller.abort();
  };
  await assert.rejects(reading, { name: "AbortError" });
  await stopped();
});

test("leaving the loop stops the model", async () => {
  const run = client.generate(asking("endless"));
  for await (const _ of run) break;
  assert.equal((await run.result).finishReason, "cancelled");
  await stopped();
});

test("the model's calls run functions", async () => {
  const tools = [{ name: "page_title", run: () => "Node" }];
  const { text } = await runTools(client, { ...asking("title"), tools }).result;
  assert.equal(text, "It is Node.");
});

test("a cut connection goes on", async () => {
  // The tests' gateway tells the rest of the story once it was resumed.
  const sockets = [];
  const proxy = createServer((socket) => {
    const far = createConnection(new URL(gateway).port, "127.0.0.1");
    for (const [one, other] of [[socket, far], [far, socket]]) {
      one.on("error", () => {}).on("close", () => other.destroy());
      one.pipe(other);
    }
    sockets.push(socket);
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  const behind = connect(`http://127.0.0.1:${proxy.address().port}`, options);
  const run = behind.generate(asking("story"));
  let resumed = 0;
  for await (const event of run.events()) {
    if (event.text === "Once ") sockets.forEach((socket) => socket.destroy());
    if (event.type === "resumed") resumed += 1;
  }
  assert.equal(run.text, "Once upon a time.");
  assert.equal(resumed, 1);
  behind.close();
  proxy.close();
});

/** Wait until the gateway has no generation. */
async function stopped() {
  const metrics = async () => (await fetch(`${gateway}/metrics`)).text();
  while (!/^mlx_gateway_generations 0\.0$/m.test(await metrics()));
}
