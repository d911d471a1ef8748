import { toolDefinition } from "@tanstack/ai/client";
import { useChat } from "@tanstack/ai-react";
import { gatewayConnection } from "mlx-gateway-client/tanstack";
import { useState } from "react";
import { gateway } from "../gateway.js";

const connection = gatewayConnection(gateway);
const pageTitle = toolDefinition({ name: "page_title", description: "Tell the title of this page." });
const tools = [pageTitle.client(() => document.title)];

export function App() {
  const [message, setMessage] = useState("");
  const { messages, sendMessage, stop, status, error } = useChat({ connection, tools });
  const parts = messages.at(-1)?.role === "assistant" ? messages.at(-1).parts : [];

  function ask(event) {
    event.preventDefault();
    sendMessage(message);
  }

  return (
    <form onSubmit={ask}>
      <h1>TanStack AI</h1>
      <input aria-label="Message" value={message} onChange={(event) => setMessage(event.target.value)} />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{parts.map((part) => part.type === "text" && part.content)}</p>
      <p id="state">{error ? error.message : status}</p>
    </form>
  );
}
