/** A program that uses client.js, under the strictest options: what compiles, and which mistakes don't. */

import { connect, GatewayError, RETRYABLE } from "../../../web_demo/client.js";
import type {
  Chunk,
  Client,
  ErrorCode,
  Message,
  Ready,
  Result,
  Run,
  RunEvent,
  Ticket,
} from "../../../web_demo/client.js";
import { runTools } from "../../../web_demo/tool_loop.js";
import type { ToolRun, ToolRunEvent } from "../../../web_demo/tool_loop.js";

class OtherSocket {
  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}
}

const client: Client = connect("http://127.0.0.1:8765", {
  token: async () => "secret",
  WebSocket: OtherSocket,
  lazy: true,
  giveUpMs: 1000,
  quietMs: 1000,
  onstate: (state, closeCode, reason) => console.log(state === "closed", closeCode?.toFixed(), reason?.trim()),
  onframe: (frame, way) => console.log(frame, way === "in"),
});

export async function uses(): Promise<Result> {
  client.open();
  const ready: Ready = await client.ready;
  const first: string | undefined = ready.models[0];
  console.log(first, ready.limits.max_frame_bytes, ready.limits.max_prompt_tokens ?? "no limit", ready.limits.max_batch ?? 1);
  const messages: Message[] = [{ role: "user", content: [{ type: "text", text: "Hello" }] }];
  const run: Run = client.generate({
    messages,
    temperature: 0,
    stop: ["."],
    tools: [{ type: "function", function: { name: "add", parameters: { type: "object" } } }],
    tool_choice: { type: "function", function: { name: "add" } },
    response_format: { type: "json_schema", schema: { type: "object" } },
    keep_on_close: true,
    onprogress: (progress) => "started" in progress && console.log(progress.started.prompt_tokens),
  });
  for await (const chunk of run) write(chunk);
  for await (const event of client.generate({ prompt: "Hello" }).events()) look(event);
  const ticket: Ticket | null = run.ticket;
  if (ticket) client.resume(ticket, { after: 3 }).cancel();
  if (ticket) client.follow(ticket, { window: 8 }).cancel();
  const tools = [{ name: "add", run: ({ a, b }: { a: number; b: number }) => a + b }];
  const calling: ToolRun = runTools(client, { messages, tools, maxRounds: 2 });
  for await (const event of calling.events()) look(event);
  messages.push(...(await calling.result).messages);
  return run.result;
}

function write({ text, channel, logprobs }: Chunk): void {
  const likely: number | undefined = logprobs?.[0]?.logprob;
  console.log(channel === "answer" ? text : "", likely);
}

function look(event: RunEvent | ToolRunEvent): string {
  switch (event.type) {
    case "text":
    case "reasoning":
      return event.text;
    case "call":
      return event.call.complete ? event.call.arguments : event.delta;
    case "progress":
      return Object.keys(event.progress).join();
    case "resumed":
      return "";
    case "result":
      return event.content;
    case "done":
      return `${event.result.usage.completion_tokens} in ${event.result.timing.total} ms`;
  }
}

export function retries(error: unknown): boolean {
  if (!(error instanceof GatewayError)) throw error;
  const code: ErrorCode = error.code;
  if (code === "connection_lost") return true;
  return RETRYABLE[code] && (error.retryAfter ?? 0) < 10;
}

export async function mistakes(error: GatewayError): Promise<void> {
  const { usage, finishReason } = await client.generate({ prompt: "Hello" }).result;
  // @ts-expect-error a misspelt option
  client.generate({ prompt: "Hello", temprature: 1 });
  // @ts-expect-error a misspelt role
  client.generate({ messages: [{ role: "usr", content: "Hello" }] });
  // @ts-expect-error a value of another type
  client.generate({ prompt: "Hello", stop: 3 });
  // @ts-expect-error a misspelt choice
  client.generate({ prompt: "Hello", tool_choice: "force" });
  // @ts-expect-error a misspelt kind of format
  client.generate({ prompt: "Hello", response_format: { type: "yaml" } });
  // @ts-expect-error a misspelt code
  console.log(error.code === "overlodaed");
  // @ts-expect-error a misspelt count
  console.log(usage.completion_token);
  // @ts-expect-error a misspelt reason
  console.log(finishReason === "length_");
  // @ts-expect-error a misspelt option of `connect`
  connect("http://127.0.0.1:8765", { tokn: "secret" });
  // @ts-expect-error a state that there is not
  console.log(client.state === "opened");
}
