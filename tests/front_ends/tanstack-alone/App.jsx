import { toolDefinition } from "@tanstack/ai/client";
import { sessionStoragePersistence, useChat, webSocket } from "@tanstack/ai-react";
import { useState } from "react";
import { gateway } from "../gateway.js";

const connection = webSocket(`${gateway.replace("http", "ws")}/v1/agui`);
const persistence = sessionStoragePersistence(); // with which a page that is loaded again goes on
const pageTitle = toolDefinition({ name: "page_title", description: "Tell the title of this page." });
const tools = [pageTitle.client(() => document.title)];

export function App() {
  const [message, setMessage] = useState("");
  const { messages, sendMessage, stop, status, error } = useChat({ connection, tools, persistence, threadId: "main" });
  const parts = messages.at(-1)?.role === "assistant" ? messages.at(-1).parts : [];

  function ask(event) {
    event.preventDefault();
    sendMessage(message);
  }

  return (
    <form onSubmit={ask}>
      <h1>TanStack AI alone</h1>
      <input aria-label="Message" value={message} onChange={(event) => setMessage(event.target.value)} />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{parts.map((part) => part.type === "text" && part.content)}</p>
      <p id="state">{error ? error.message : status}</p>
    </form>
  );
}
