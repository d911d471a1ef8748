// OpenAI's Node SDK, unmodified: `openai_node.mjs FOLDER TASK BASE_URL…`, where FOLDER has its packages.
// It prints JSON, a line a value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, task, baseURL, ...others] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load("openai");
const { ResponsesWS } = await load("openai/resources/responses/ws");

const ENDS = ["response.completed", "response.incomplete", "response.failed"];
const say = (value) => console.log(JSON.stringify(value));
const clientOf = (options = {}) => new OpenAI({ apiKey: "sesame", baseURL, maxRetries: 0, ...options });

/** Dials, and again after a connection that is lost if there is something to do then. */
const dial = (onReconnecting) => {
  const reconnect = onReconnecting && { initialDelay: 10, onReconnecting };
  return new ResponsesWS(clientOf(), { reconnect });
};

/** Returns the texts and the end of a response in a lane, or the error that it is refused with. */
const end = (socket, lane, onText = () => {}) =>
  new Promise((resolve) => {
    const texts = [];
    const ours = (event) => event.stream_id === lane;
    const on = {
      "response.output_text.delta": (event) => {
        if (!ours(event)) return;
        texts.push(event.delta);
        onText(event);
      },
      error: (error) => {
        if (!error.error || ours(error.error)) finish({ error: error.error ?? error.message });
      },
    };
    for (const kind of ENDS) on[kind] = (event) => ours(event) && finish({ texts, response: event.response });
    const finish = (value) => {
      for (const [name, listener] of Object.entries(on)) socket.off(name, listener);
      resolve(value);
    };
    for (const [name, listener] of Object.entries(on)) socket.on(name, listener);
  });

/** Asks for a response, and returns its texts and its end. */
const answer = (socket, { onText, ...fields }) => {
  const told = end(socket, fields.stream_id, onText);
  socket.send({ type: "response.create", ...fields });
  return told;
};

/** Returns why a client is not let in. */
const refusalOf = (client) =>
  new Promise((resolve) => new ResponsesWS(client).on("error", (error) => resolve(error.message)));

const TASKS = {
  async work() {
    let onReconnecting;
    const socket = dial((event) => onReconnecting(event));
    const first = await answer(socket, { input: "double 21" });
    const call = first.response.output[0];
    say([call.type, call.name, JSON.parse(call.arguments).number]);
    const output = { type: "function_call_output", call_id: call.call_id, output: "42" };
    const second = await answer(socket, { input: [output], previous_response_id: first.response.id });
    say(second.texts.join(""));
    const onText = () => socket.send({ type: "response.cancel" });
    say((await answer(socket, { input: "long", onText })).response.status);
    const stream = [];
    socket.send({ type: "response.create", input: "echo one two" });
    for await (const event of socket) {
      if (event.type === "message" && ENDS.includes(event.message.type)) break;
      if (event.type === "message") stream.push(event.message);
    }
    say(stream.filter(({ type }) => type.endsWith("text.delta")).map(({ delta }) => delta).join(""));
    const schema = { type: "object", properties: { number: { type: "integer" } }, required: ["number"] };
    const format = { type: "json_schema", name: "answer", schema };
    const typed = await answer(socket, { input: "form", text: { format } });
    say(JSON.parse(typed.texts.join("")));
    const lost = new Promise((resolve) => {
      onReconnecting = ({ closeCode }) => resolve(closeCode);
    });
    const back = answer(socket, { input: "drop" });
    say(await lost);
    socket.send({ type: "response.create", input: "echo again" });
    say((await back).texts.join(""));
    socket.close();
  },
  async refused() {
    const socket = dial();
    for (const fields of [{ temperature: 9 }, { previous_response_id: "resp_no" }, { model: "gpt" }]) {
      const { error } = await answer(socket, { input: "x", ...fields });
      say([error.status, error.error.code, error.error.param]);
    }
    for (const input of ["large", "full", "bad"]) {
      const { error, response } = await answer(socket, { input });
      say(error ? [error.status, error.error.code] : [response.status, response.error.code]);
    }
    socket.close();
    say(await refusalOf(clientOf({ apiKey: "wrong" })));
    try {
      await clientOf().responses.create({ model: "scripted", input: "x" }); // by a POST
    } catch (error) {
      say([error.status, error.message]);
    }
  },
  async stranger() {
    for (const url of [baseURL, ...others]) say(await refusalOf(clientOf({ baseURL: url })));
  },
  async stop() {
    let again;
    const socket = dial(({ closeCode }) => again(closeCode));
    const staying = (onText) => answer(socket, { input: "stay", stream_id: "stays", onText });
    let stays;
    await new Promise((resolve) => (stays = staying(resolve)));
    const refusal = async () => {
      const { error } = await answer(socket, { input: "echo x" });
      return [error.status, error.error.code, error.error.headers ?? null];
    };
    const limited = await refusal();
    say(limited);
    say(await refusalOf(clientOf())); // for a connection too many
    let stopping = limited;
    while (stopping[1] === limited[1]) stopping = await refusal();
    say(stopping);
    const dialledAgain = new Promise((resolve) => (again = resolve));
    say(await refusalOf(clientOf()));
    const cut = await stays;
    say([cut.response.status, cut.texts.join("")]);
    const code = await dialledAgain;
    say([code, (await answer(socket, { input: "echo back" })).texts.join("")]);
    socket.close();
  },
};

await TASKS[task]();
