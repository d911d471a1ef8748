/** Asks from the command line: node chat.js "Tell me a story". Ctrl-C stops the model. */
import { connect } from "mlx-gateway-client";

const client = connect(process.env.GATEWAY ?? "http://127.0.0.1:8765");
const run = client.generate({ messages: [{ role: "user", content: process.argv[2] }] });
process.once("SIGINT", () => run.cancel());
for await (const { text } of run) process.stdout.write(text);
const { finishReason } = await run.result;
console.log(`\n(${finishReason})`);
client.close();
