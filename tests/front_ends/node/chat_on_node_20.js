/** Asks from the command line on Node 20, which has no WebSocket of its own: npm install ws. */
import { connect } from "mlx-gateway-client";
import { WebSocket } from "ws";

const client = connect(process.env.GATEWAY ?? "http://127.0.0.1:8765", { WebSocket });
const run = client.generate({ messages: [{ role: "user", content: process.argv[2] }] });
process.once("SIGINT", () => run.cancel());
for await (const { text } of run) process.stdout.write(text);
const { finishReason } = await run.result;
console.log(`\n(${finishReason})`);
client.close();
