// TanStack AI's `webSocket()`, unmodified, under its chat client: `tanstack_node.mjs FOLDER TASK URL…`, where FOLDER has
// its packages. It prints JSON, a line a value.
import { pathToFileURL } from "node:url";

const [folder, task, url, ...others] = process.argv.slice(2);
const { ChatClient, webSocket } = await import(pathToFileURL(`${folder}/node_modules/@tanstack/ai-client/dist/esm/index.js`));

const say = (value) => console.log(JSON.stringify(value));
const token = `mlx-gateway.bearer.${Buffer.from("sesame").toString("base64url")}`;
const protocols = ["ag-ui.v1", token];
const sockets = [];
class Watched extends WebSocket {
  constructor(...given) {
    super(...given);
    sockets.push(this);
  }
}
const connect = (body = {}, at = url) => webSocket(at, { protocols, body, WebSocketImpl: Watched });
const textOf = (message) => message.parts.map((part) => (part.type === "text" ? part.content : "")).join("");
const textIn = (chat) => textOf(chat.getMessages().at(-1));

const until = async (found) => {
  while (!found()) await new Promise((resolve) => setTimeout(resolve, 2));
};

const TASKS = {
  async text() {
    const connection = connect({ maxOutputTokens: 20 });
    const chat = new ChatClient({ connection });
    const ends = [];
    const seen = connection.subscribe();
    void (async () => {
      for await (const chunk of seen) if (chunk.type === "RUN_FINISHED") ends.push(chunk);
    })();
    await chat.sendMessage("Tell me a story");
    say([chat.getStatus(), textIn(chat)]);
    await until(() => ends.length);
    say([ends[0].usage, ends[0].metadata.tanstack]);
    await chat.sendMessage("Tell me another");
    say([chat.getMessages().length, sockets.length]);
  },
  async tools() {
    const calls = [];
    const weather = {
      ...{ __toolSide: "client", name: "get_weather", description: "Weather of a city" },
      inputSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
      execute: (input) => {
        calls.push(input);
        return { temperature: 21, sky: "clear" };
      },
    };
    const chat = new ChatClient({ connection: connect(), tools: [weather] });
    await chat.sendMessage("What is the weather in Paris?");
    await until(() => chat.getStatus() === "ready" && textIn(chat));
    say([calls, textIn(chat)]);
  },
  async stop() {
    const chat = new ChatClient({ connection: connect() });
    void chat.sendMessage("long");
    await until(() => chat.getMessages().length === 2 && textIn(chat));
    chat.stop();
    say(chat.getStatus());
    void chat.sendMessage("long");
    await until(() => chat.getMessages().length === 4 && textIn(chat));
    chat.stop();
    say(sockets.length);
  },
  async reconnect() {
    const chat = new ChatClient({ connection: connect() });
    const sent = chat.sendMessage("hi");
    await until(() => chat.getMessages().length === 2 && textIn(chat) === "a");
    sockets[0].close(); // as a network that is lost: nobody has asked for it
    await sent;
    say([chat.getStatus(), textIn(chat), sockets.length]);
  },
  async join() {
    const connection = connect();
    const chat = new ChatClient({ connection });
    const began = [];
    const seen = connection.subscribe();
    void (async () => {
      for await (const chunk of seen) if (chunk.type === "RUN_STARTED") began.push(chunk.runId);
    })();
    void chat.sendMessage("hi");
    await until(() => chat.getMessages().length === 2 && textIn(chat) === "a");
    const page = connect();
    const kinds = [];
    for await (const chunk of page.joinRun(began[0])) kinds.push(chunk.type);
    say(kinds);
    try {
      for await (const chunk of page.joinRun("unknown")) say([chunk.type, chunk.code]);
    } catch (error) {
      say(String(error.cause?.message ?? error.message));
    }
  },
  async refused() {
    const errors = [];
    const onError = (error) => errors.push(error.message);
    await new ChatClient({ connection: connect({ temperature: 9 }), onError }).sendMessage("hi");
    await new ChatClient({ connection: connect({ model: "nobody" }), onError }).sendMessage("hi");
    for (const word of ["large", "full", "bad"]) {
      await new ChatClient({ connection: connect(), onError }).sendMessage(word);
    }
    const protocolsOf = (secret) => ["ag-ui.v1", `mlx-gateway.bearer.${Buffer.from(secret).toString("base64url")}`];
    const stranger = webSocket(url, { protocols: protocolsOf("wrong") });
    await new ChatClient({ connection: stranger, onError }).sendMessage("hi");
    say(errors);
  },
  async stranger() {
    for (const at of [url, ...others]) {
      let failed;
      const onError = (error) => (failed = error.message);
      await new ChatClient({ connection: connect({}, at), onError }).sendMessage("hi");
      say(failed);
    }
  },
  async limits() {
    const stays = new ChatClient({ connection: connect() });
    void stays.sendMessage("stay");
    await until(() => stays.getMessages().length === 2 && textIn(stays));
    /** Asks in another chat; returns its answer, or why there is none. */
    const told = async (said, connection) => {
      let failed;
      const chat = new ChatClient({ connection, onError: (error) => (failed = error.message) });
      await chat.sendMessage(said);
      return failed ?? textIn(chat);
    };
    const other = connect();
    const limited = await told("echo x", other);
    say(limited);
    say(await told("echo x", connect())); // by a connection too many
    let stopping = limited;
    while (stopping === limited) stopping = await told("echo x", other);
    say(stopping);
    say(await told("echo x", connect()));
    await until(() => stays.getStatus() !== "streaming");
    say([stays.getStatus(), textIn(stays)]);
    // The socket may not know yet that it is closed, and hears of it in another turn of the loop.
    while ((await told("echo back", other)) !== "back") await new Promise((resolve) => setTimeout(resolve, 2));
  },
};

await TASKS[task]();
process.exit(0);
