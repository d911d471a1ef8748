import { useChat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithToolCalls, WebSocketChatTransport } from "ai";
import { useState } from "react";
import { gateway } from "../gateway.js";

const tools = [{ name: "page_title", description: "Tell the title of this page.", inputSchema: { type: "object" } }];
const transport = new WebSocketChatTransport({ url: `${gateway}/v1/chat`, body: { tools } });
const id = (sessionStorage.chat ??= crypto.randomUUID()); // a page that is loaded again goes on with the same one

export function App() {
  const [message, setMessage] = useState("");
  const { messages, sendMessage, stop, status, error, addToolOutput } = useChat({
    id,
    transport,
    resume: true,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall({ toolCall: { toolName: tool, toolCallId } }) {
      addToolOutput({ tool, toolCallId, output: document.title });
    },
  });
  const parts = messages.at(-1)?.role === "assistant" ? messages.at(-1).parts : [];

  function ask(event) {
    event.preventDefault();
    sendMessage({ text: message });
  }

  return (
    <form onSubmit={ask}>
      <h1>AI SDK alone</h1>
      <input aria-label="Message" value={message} onChange={(event) => setMessage(event.target.value)} />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{parts.map((part) => part.type === "text" && part.text)}</p>
      <p id="state">{error ? error.message : status}</p>
    </form>
  );
}
