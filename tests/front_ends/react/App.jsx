import { useGateway, useRun } from "mlx-gateway-client/react";
import { useEffect, useState } from "react";
import { gateway } from "../gateway.js";

const tools = [{ name: "page_title", description: "Tell the title of this page.", run: () => document.title }];

export function App() {
  const [message, setMessage] = useState("");
  const [connection, setConnection] = useState("closed");
  const onstate = (state, code, reason) => setConnection(reason || state);
  const client = useGateway(gateway, { lazy: false, onstate });
  const { text, error, runTools, resume, stop } = useRun(client);

  async function ask(event) {
    event.preventDefault();
    const onprogress = ({ started }) => started && sessionStorage.setItem("run", JSON.stringify(run.ticket));
    const messages = [{ role: "user", content: message }];
    const run = runTools({ messages, tools, onprogress, keep_on_close: true });
    await run.result.catch(() => {}); // `error` has it
    sessionStorage.removeItem("run");
  }

  useEffect(() => {
    const kept = sessionStorage.getItem("run"); // of this page before it was loaded again
    if (kept) resume(JSON.parse(kept));
  }, [resume]);

  return (
    <form onSubmit={ask}>
      <h1>React</h1>
      <input aria-label="Message" value={message} onChange={(event) => setMessage(event.target.value)} />
      <button type="button" onClick={stop}>Stop</button>
      <p id="answer">{text}</p>
      <p id="state">{error ? error.message : connection}</p>
    </form>
  );
}
