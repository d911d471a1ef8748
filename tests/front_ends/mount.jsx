import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

export function mount(App) {
  createRoot(document.getElementById("root")).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}
