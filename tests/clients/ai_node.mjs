// The AI SDK's own transport, unmodified, under its chat: `ai_node.mjs FOLDER TASK URL…`, where FOLDER has its packages.
// It prints JSON, a line a value.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, task, url, ...others] = process.argv.slice(2);
const { AbstractChat, WebSocketChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = await import(
  pathToFileURL(createRequire(`${folder}/package.json`).resolve("ai"))
);

const say = (value) => console.log(JSON.stringify(value));
const token = `mlx-gateway.bearer.${Buffer.from("sesame").toString("base64url")}`;
const transportOf = (body = {}, at = url) =>
  new WebSocketChatTransport({ url: at, protocols: ["ai-sdk.v1", token], body });
const textOf = (message) => message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");

/** What `useChat` is in Node: its chat, with a state of plain fields. */
class Chat extends AbstractChat {
  constructor(options) {
    const messages = options.messages ?? [];
    const state = {
      ...{ status: "ready", error: undefined, messages },
      pushMessage: (message) => state.messages.push(message),
      popMessage: () => state.messages.pop(),
      replaceMessage: (index, message) => (state.messages[index] = structuredClone(message)),
      snapshot: structuredClone,
    };
    super({ id: "chat", ...options, state });
  }
  get text() {
    return this.lastMessage ? textOf(this.lastMessage) : "";
  }
}

/** Waits until `found()` is true. */
const until = async (found) => {
  while (!found()) await new Promise((resolve) => setTimeout(resolve, 2));
};

const TASKS = {
  async text() {
    const data = [];
    const transport = transportOf({ maxOutputTokens: 20 });
    const chat = new Chat({ transport, onData: (part) => data.push(part) });
    await chat.sendMessage({ text: "Tell me a story" });
    const first = structuredClone(chat.lastMessage);
    say([chat.status, chat.text, first.parts.map((part) => part.type)]);
    say(data.at(-1).data.usage.completion_tokens);
    await chat.regenerate();
    say([chat.messages.length, chat.text === textOf(first)]);
    transport.close(); // after which the next request dials again
    const again = new Chat({ transport, messages: chat.messages });
    await again.resumeStream();
    say([again.status, again.messages.length, again.text === chat.text]);
    await new Chat({ id: "other", transport }).resumeStream();
    transport.close();
  },
  async tools() {
    const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
    const tools = [{ name: "get_weather", description: "Weather of a city", inputSchema: parameters }];
    const transport = transportOf({ tools });
    const calls = [];
    const chat = new Chat({
      transport,
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall({ toolCall: { toolCallId, toolName: tool, input } }) {
        calls.push([tool, input]);
        void chat.addToolOutput({ tool, toolCallId, output: { temperature: 21, sky: "clear" } });
      },
    });
    await chat.sendMessage({ text: "What is the weather in Paris?" });
    await until(() => chat.status === "ready" && chat.text);
    say([calls, chat.text, chat.messages.length, chat.lastMessage.parts.map((part) => part.type)]);
    transport.close();
  },
  async stop() {
    const transport = transportOf();
    const chat = new Chat({ transport });
    void chat.sendMessage({ text: "long" });
    await until(() => chat.messages.length === 2 && chat.text);
    await chat.stop();
    say(chat.status);
    void chat.sendMessage({ text: "long" });
    await until(() => chat.messages.length === 4 && chat.text);
    say(chat.status);
    await chat.stop();
    transport.close();
  },
  async resume() {
    const left = transportOf();
    const chat = new Chat({ transport: left });
    void chat.sendMessage({ text: "hi" });
    await until(() => chat.text === "a");
    const messages = structuredClone(chat.messages);
    const transport = transportOf();
    const page = new Chat({ transport, messages });
    void page.resumeStream();
    await until(() => page.status === "streaming" && page.text === "a");
    say([page.messages.length, page.lastMessage.id === messages[1].id]);
    left.close();
    await page.stop(); // of an answer that another page began
    say(page.status);
    transport.close();
  },
  async refused() {
    const hot = transportOf({ temperature: 9 });
    const refused = new Chat({ id: "hot", transport: hot });
    await refused.sendMessage({ text: "hi" });
    say([refused.status, refused.error.message]);
    hot.close();
    const nobody = transportOf({ model: "nobody" });
    const unknown = new Chat({ id: "unknown", transport: nobody });
    await unknown.sendMessage({ text: "hi" });
    say([unknown.status, unknown.error.message]);
    nobody.close();
    const transport = transportOf();
    const chat = new Chat({ transport });
    const files = [{ type: "file", mediaType: "image/png", url: "https://a.example/x.png" }];
    await chat.sendMessage({ text: "hi", files });
    say([chat.status, chat.error.message]);
    chat.messages = [];
    for (const text of ["large", "full", "bad"]) {
      await chat.sendMessage({ text });
      say([chat.status, chat.error.message]);
    }
    const stranger = new Chat({ transport: new WebSocketChatTransport({ url }) });
    await stranger.sendMessage({ text: "hi" });
    say([stranger.status, stranger.error.name]);
    transport.close();
  },
  async stranger() {
    for (const at of [url, ...others]) {
      const chat = new Chat({ transport: transportOf({}, at) });
      await chat.sendMessage({ text: "hi" });
      say([chat.status, chat.error.name, chat.error.message]);
    }
  },
  async cut() {
    const transport = transportOf();
    const chat = new Chat({ transport });
    await chat.sendMessage({ text: "hi" });
    say([chat.status, chat.error.name]);
    await chat.resumeStream(); // as `useChat` does by itself when its page is looked at again
    say([chat.status, chat.text, chat.messages.length]);
    await chat.sendMessage({ text: "again" });
    say([chat.status, chat.text, chat.messages.length]);
    transport.close();
  },
  async limits() {
    const transport = transportOf();
    const stays = new Chat({ id: "stays", transport });
    void stays.sendMessage({ text: "stay" });
    await until(() => stays.messages.length === 2 && stays.text);
    /** Asks in another chat; returns its answer, or why there is none. */
    const told = async (said, by = transport) => {
      const chat = new Chat({ id: "other", transport: by });
      await chat.sendMessage({ text: said });
      return chat.error ? chat.error.message : chat.text;
    };
    const limited = await told("echo x");
    say(limited);
    say(await told("echo x", transportOf())); // by a connection too many
    let stopping = limited;
    while (stopping === limited) stopping = await told("echo x");
    say(stopping);
    say(await told("echo x", transportOf()));
    await until(() => stays.status !== "streaming");
    say([stays.status, stays.text]);
    // The socket may not know yet that it is closed, and hears of it in another turn of the loop.
    while ((await told("echo back")) !== "back") await new Promise((resolve) => setTimeout(resolve, 2));
    transport.close();
  },
};

await TASKS[task]();
