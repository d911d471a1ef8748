import {
  AssistantRuntimeProvider,
  AuiConfig,
  ComposerPrimitive,
  ErrorPrimitive,
  MessagePrimitive,
  ThreadPrimitive,
  Tools,
  useLocalRuntime,
} from "@assistant-ui/react";
import { gatewayModel } from "mlx-gateway-client/assistant-ui";
import { gateway } from "../gateway.js";

const model = gatewayModel(gateway, { keep_on_close: true });
const adapters = { history: model.history };
const page_title = {
  type: "frontend",
  description: "Tell the title of this page.",
  parameters: { type: "object", properties: {} },
  execute: async () => document.title,
};
const config = AuiConfig({ tools: Tools({ toolkit: { page_title } }) });
const components = { UserMessage: () => null, AssistantMessage };
const parts = { Text: ({ text }) => text };

export function App() {
  return (
    <AssistantRuntimeProvider runtime={useLocalRuntime(model, { adapters })} config={config}>
      <h1>assistant-ui</h1>
      <ComposerPrimitive.Root>
        <ComposerPrimitive.Input aria-label="Message" />
        <ComposerPrimitive.Cancel>Stop</ComposerPrimitive.Cancel>
      </ComposerPrimitive.Root>
      <ThreadPrimitive.Messages components={components} />
    </AssistantRuntimeProvider>
  );
}

function AssistantMessage() {
  return (
    <MessagePrimitive.Root>
      <div id="answer">
        <MessagePrimitive.Parts components={parts} />
      </div>
      <ErrorPrimitive.Root id="state">
        <ErrorPrimitive.Message />
      </ErrorPrimitive.Root>
    </MessagePrimitive.Root>
  );
}
