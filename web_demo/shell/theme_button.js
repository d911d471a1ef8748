// @ts-check
/** The button that changes the colours: as the system has them, light, dark. */

const NEXT = /** @type {const} */ ({ system: "light", light: "dark", dark: "system" });
const SIGNS = { system: "◐", light: "○", dark: "●" };

/** @typedef {keyof typeof NEXT} Theme */

/** @param {HTMLButtonElement} button */
export function watchTheme(button) {
  const root = document.documentElement;

  const theme = () => /** @type {Theme} */ (root.dataset.theme ?? "system");

  function show() {
    button.textContent = SIGNS[theme()];
    button.ariaLabel = button.title = `Colours: ${theme() === "system" ? "as the system has them" : theme()}`;
  }

  button.addEventListener("click", () => {
    const next = NEXT[theme()];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", next);
    } catch {
      // this browser keeps nothing
    }
    show();
  });
  show();
}
