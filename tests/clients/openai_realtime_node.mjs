// OpenAI's Node SDK, unmodified: `openai_realtime_node.mjs FOLDER MODULE TASK BASE_URL…`, where FOLDER has its
// packages, and MODULE is `ws`, with the class for Node, or `websocket`, with that for browsers.
// It prints JSON, a line a value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, kind, task, baseURL, ...others] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load("openai");
const { OpenAIRealtimeWS, OpenAIRealtimeWebSocket } = await load(`openai/realtime/${kind}`);

const say = (value) => console.log(JSON.stringify(value));
const Realtime = OpenAIRealtimeWS ?? OpenAIRealtimeWebSocket;
const recovery = { reconnect: true, reconnectInitialDelay: 10 };
const dial = (options = {}, as = {}) =>
  new Realtime({ model: "scripted", ...options }, new OpenAI({ apiKey: "sesame", baseURL, ...as }));
const next = (socket, type) => new Promise((resolve) => socket.once(type, resolve));

/** Puts a question, and returns the texts and the end of its response, or why it has none. */
const answer = async (socket, text) => {
  const texts = [];
  const heard = (event) => texts.push(event.delta);
  socket.on("response.output_text.delta", heard);
  const content = [{ type: "input_text", text }];
  const input = [{ type: "message", role: "user", content }];
  const ended = next(socket, "response.done").then(({ response }) => ({ texts, response }));
  const refused = next(socket, "error").then(({ error }) => ({ error }));
  socket.send({ type: "response.create", response: { conversation: "none", input } });
  const told = await Promise.race([ended, refused]);
  socket.off("response.output_text.delta", heard);
  return told;
};

/** Returns why a client is not let in: what its class says, and how its socket is closed. */
const refusalOf = async (as) => {
  const socket = dial({}, as);
  socket.on("error", () => {}); // told by its socket's close, where there is no answer to show
  const reason = new Promise((resolve) => {
    socket.socket.addEventListener("error", ({ message }) => message && resolve(message));
    socket.socket.addEventListener("close", ({ code, reason }) => resolve(`${code} ${reason}`));
  });
  return reason;
};

const TASKS = {
  async work() {
    const socket = dial(recovery);
    const { session } = await next(socket, "session.created");
    say([session.type, session.model]);
    const first = await answer(socket, "echo hello");
    say([first.response.status, first.texts.join("")]);
    const created = next(socket, "response.created");
    const begun = next(socket, "response.output_text.delta"); // one cancel: a late one is an error
    const told = answer(socket, "long");
    await begun;
    socket.send({ type: "response.cancel", response_id: (await created).response.id });
    const cut = await told;
    say([cut.response.status, cut.response.status_details.reason]);
    const refused = next(socket, "error");
    socket.send({ type: "input_audio_buffer.commit", event_id: "e" });
    const { error } = await refused;
    say([error.param, error.event_id]);
    void answer(socket, "drop");
    const { closeCode } = await next(socket, "reconnecting");
    await next(socket, "session.created");
    say([closeCode, (await answer(socket, "echo back")).texts.join("")]);
    socket.close();
  },
  async refused() {
    const socket = dial();
    await next(socket, "session.created");
    for (const text of ["hot", "large", "full", "bad"]) {
      const { error, response } = await answer(socket, text);
      say(error ? error.code : [response.status, response.status_details.error.code]);
    }
    socket.close();
    const other = dial({ model: "gpt" });
    await next(other, "session.created");
    const { error } = await answer(other, "hello");
    say([error.code, error.param]);
    other.close();
    say(await refusalOf({ apiKey: "wrong" }));
  },
  async stranger() {
    for (const url of [baseURL, ...others]) say(await refusalOf({ baseURL: url }));
  },
  async stop() {
    const socket = dial(recovery);
    const lost = next(socket, "reconnecting");
    await next(socket, "session.created");
    const cut = next(socket, "response.done");
    const content = [{ type: "input_text", text: "stay" }];
    const input = [{ type: "message", role: "user", content }];
    socket.send({ type: "response.create", response: { conversation: "none", input } });
    await next(socket, "response.output_text.delta");
    const refusal = async () => (await answer(socket, "echo x")).error.code;
    const limited = await refusal();
    say(limited);
    say(await refusalOf()); // for a connection too many
    let stopping = limited;
    while (stopping === limited) stopping = await refusal();
    say(stopping);
    say(await refusalOf());
    const { response } = await cut;
    say([response.status, response.output[0].content[0].text]);
    const { closeCode } = await lost;
    await next(socket, "session.created");
    say([closeCode, (await answer(socket, "echo back")).texts.join("")]);
    socket.close();
  },
};

await TASKS[task]();
