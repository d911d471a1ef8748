// OpenAI's Node SDK, unmodified: `openai_realtime_node.mjs FOLDER BASE_URL MODULE`, where FOLDER has its
// packages, and MODULE is `ws`, with the class for Node, or `websocket`, with that for browsers.
// It prints JSON, a line a value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL, kind] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load("openai");
const { OpenAIRealtimeWS, OpenAIRealtimeWebSocket } = await load(`openai/realtime/${kind}`);

const say = (value) => console.log(JSON.stringify(value));
const client = new OpenAI({ apiKey: "sesame", baseURL });
const Realtime = OpenAIRealtimeWS ?? OpenAIRealtimeWebSocket;
const socket = new Realtime({ model: "scripted" }, client);
const next = (type) => new Promise((resolve) => socket.once(type, resolve));

/** Puts a question, and returns the texts and the end of its response. */
const answer = async (text, onText = () => {}) => {
  const texts = [];
  const heard = (event) => {
    texts.push(event.delta);
    onText();
  };
  socket.on("response.output_text.delta", heard);
  const content = [{ type: "input_text", text }];
  socket.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  socket.send({ type: "response.create" });
  const { response } = await next("response.done");
  socket.off("response.output_text.delta", heard);
  return { texts, response };
};

const { session } = await next("session.created");
say([session.type, session.model]);
const first = await answer("echo hello");
say([first.response.status, first.texts.join("")]);
const cut = await answer("long", () => socket.send({ type: "response.cancel" }));
say([cut.response.status, cut.response.status_details.reason]);
const refused = next("error");
socket.send({ type: "input_audio_buffer.commit", event_id: "e" });
const { error } = await refused;
say([error.param, error.event_id]);
socket.close();
