// OpenAI's Node SDK, unmodified: `openai_node.mjs FOLDER BASE_URL`, where FOLDER has its packages.
// It prints JSON, a line a value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load("openai");
const { ResponsesWS } = await load("openai/resources/responses/ws");

const ENDS = ["response.completed", "response.incomplete", "response.failed"];
const say = (value) => console.log(JSON.stringify(value));
let onReconnecting = () => {};
const reconnect = { initialDelay: 10, onReconnecting: (event) => onReconnecting(event) };
const socket = new ResponsesWS(new OpenAI({ apiKey: "sesame", baseURL }), { reconnect });

/** Returns the texts and the end of a response, or the error that it is refused with. */
const answer = (fields, onText = () => {}) =>
  new Promise((resolve) => {
    const texts = [];
    const on = {
      "response.output_text.delta": (event) => {
        texts.push(event.delta);
        onText(event);
      },
      error: (error) => finish({ error: error.error?.error ?? error.message }),
    };
    for (const end of ENDS) on[end] = (event) => finish({ texts, response: event.response });
    const finish = (value) => {
      for (const [name, listener] of Object.entries(on)) socket.off(name, listener);
      resolve(value);
    };
    for (const [name, listener] of Object.entries(on)) socket.on(name, listener);
    socket.send({ type: "response.create", ...fields });
  });

const first = await answer({ input: "double 21" });
const call = first.response.output[0];
say([call.type, call.name, JSON.parse(call.arguments).number]);
const output = { type: "function_call_output", call_id: call.call_id, output: "42" };
const second = await answer({ input: [output], previous_response_id: first.response.id });
say(second.texts.join(""));
say((await answer({ input: "x", temperature: 9 })).error);
const third = await answer({ input: "long" }, () => socket.send({ type: "response.cancel" }));
say(third.response.status);
const stream = [];
socket.send({ type: "response.create", input: "echo one two" });
for await (const event of socket) {
  if (event.type === "message" && ENDS.includes(event.message.type)) break;
  if (event.type === "message") stream.push(event.message);
}
say(stream.filter(({ type }) => type.endsWith("text.delta")).map(({ delta }) => delta).join(""));
const schema = { type: "object", properties: { number: { type: "integer" } }, required: ["number"] };
const format = { type: "json_schema", name: "answer", schema };
const typed = await answer({ input: "form", text: { format } });
say(JSON.parse(typed.texts.join("")));
for (const input of ["large", "full", "bad"]) {
  const { error, response } = await answer({ input });
  say(error ? error.code : [response.status, response.error.code]);
}
const lost = new Promise((resolve) => {
  onReconnecting = ({ closeCode }) => resolve(closeCode);
});
const back = answer({ input: "drop" });
say(await lost);
socket.send({ type: "response.create", input: "echo again" });
say((await back).texts.join(""));
socket.close();
