"use client";
import { useGateway, useRun } from "mlx-gateway-client/react";
import { gateway } from "../../gateway.js";

const tools = [{ name: "page_title", description: "Tell the title of this page.", run: () => document.title }];

export function Chat() {
  const { text, state, error, runTools, stop } = useRun(useGateway(gateway));

  /** Unlike `onSubmit`, an action also has what is asked before the page's code is there. */
  function ask(fields) {
    runTools({ messages: [{ role: "user", content: fields.get("message") }], tools });
  }

  return (
    <form action={ask}>
      <input aria-label="Message" name="message" />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{text}</p>
      <p id="state">{error ? error.message : state}</p>
    </form>
  );
}
