/** A program that uses the adapters, under the strictest options: what compiles, and which mistakes don't. */

import { useChat as useAiChat } from "@ai-sdk/react";
import { AssistantRuntimeProvider, useLocalRuntime } from "@assistant-ui/react";
import { useChat as useTanStackChat } from "@tanstack/ai-react";
import type { UIMessage } from "ai";
import { GatewayError } from "mlx-gateway-client";
import type { Message, Result } from "mlx-gateway-client";
import { GatewayTransport } from "mlx-gateway-client/ai-sdk";
import { gatewayModel } from "mlx-gateway-client/assistant-ui";
import { gatewayConnection } from "mlx-gateway-client/tanstack";
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

export function WithAiSdk() {
  const messageMetadata = ({ usage }: Result) => ({ tokens: usage.completion_tokens });
  const transport = new GatewayTransport("http://127.0.0.1:8765", { keep_on_close: true, messageMetadata });
  // @ts-expect-error a misspelt field
  new GatewayTransport("http://127.0.0.1:8765", { temprature: 1 });
  const { messages: shown, sendMessage, stop, error } = useAiChat<UIMessage<{ tokens: number }>>({ transport });
  const code = error instanceof GatewayError ? error.code : undefined;
  return (
    <section>
      <button onClick={() => sendMessage({ text: "Hello" }, { body: { temperature: 0 } })}>Ask</button>
      <button onClick={stop}>{code === "overloaded" ? "Later" : "Stop"}</button>
      {shown.map(({ id, metadata }) => (
        <p key={id}>{metadata?.tokens}</p>
      ))}
    </section>
  );
}

export function WithTanStack() {
  const connection = gatewayConnection("http://127.0.0.1:8765", { model: "small" });
  // @ts-expect-error a misspelt field
  gatewayConnection("http://127.0.0.1:8765", { modle: "small" });
  const { messages: shown, sendMessage, stop } = useTanStackChat({ connection });
  return (
    <section>
      <button onClick={() => sendMessage("Hello")}>Ask</button>
      <button onClick={stop}>{shown.length}</button>
    </section>
  );
}

export function WithAssistantUi() {
  // @ts-expect-error a misspelt field
  gatewayModel("http://127.0.0.1:8765", { topp: 1 });
  const model = gatewayModel("http://127.0.0.1:8765", { id: "first", top_p: 0.9, keep_on_close: true });
  const runtime = useLocalRuntime(model, { adapters: { history: model.history } });
  return <AssistantRuntimeProvider runtime={runtime}>…</AssistantRuntimeProvider>;
}
