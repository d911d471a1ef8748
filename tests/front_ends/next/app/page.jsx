import { Chat } from "./chat.jsx";

/** Rendered on the server, which must not connect; the chat connects in the browser. */
export default function Page() {
  return (
    <main>
      <h1>Next</h1>
      <Chat />
    </main>
  );
}
