"use client";
import { useGateway, useRun } from "mlx-gateway-client/react";
import { useState } from "react";
import { gateway } from "../../gateway.js";

const tools = [{ name: "page_title", description: "Tell the title of this page.", run: () => document.title }];

export function Chat() {
  const [message, setMessage] = useState("");
  const { text, state, error, runTools, stop } = useRun(useGateway(gateway));

  function ask(event) {
    event.preventDefault();
    runTools({ messages: [{ role: "user", content: message }], tools });
  }

  return (
    <form onSubmit={ask}>
      <input aria-label="Message" value={message} onChange={(event) => setMessage(event.target.value)} />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{text}</p>
      <p id="state">{error ? error.message : state}</p>
    </form>
  );
}
