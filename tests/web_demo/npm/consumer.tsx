/** A program that uses the adapters, under the strictest options: what compiles, and which mistakes don't. */

import type { Message } from "mlx-gateway-client";
import { useConnectionState, useGateway, useRun } from "mlx-gateway-client/react";

const messages: Message[] = [{ role: "user", content: "Hello" }];

export function InReact() {
  const client = useGateway("http://127.0.0.1:8765", { token: async () => "secret", lazy: false });
  const connection = useConnectionState(client);
  const { text, reasoning, calls, state, progress, usage, result, error, generate, runTools, stop } = useRun(client);
  // @ts-expect-error a state that there is not
  console.log(state === "finished", connection === "open");
  // @ts-expect-error a misspelt option
  generate({ messages, temprature: 1 });
  const ask = async () => {
    await generate({ messages, temperature: 0 }).result;
    const add = ({ a, b }: { a: number; b: number }) => a + b;
    messages.push(...(await runTools({ messages, tools: [{ name: "add", run: add }] }).result).messages);
  };
  return (
    <section>
      <button onClick={state === "streaming" ? stop : ask}>{state}</button>
      <p title={reasoning}>{text}</p>
      {calls.map(({ id, name, arguments: given, content }) => (
        <p key={id} title={given}>{`${name}: ${content ?? "…"}`}</p>
      ))}
      <p>{progress && "queued" in progress ? progress.queued : usage?.completion_tokens.toFixed()}</p>
      <p>{error?.message ?? result?.finishReason}</p>
    </section>
  );
}
