// @ts-check
/** Sets the colours that a person has chosen before the page is first painted; so it is no module. */
{
  const { localStorage: kept } = globalThis;
  try {
    const theme = kept.getItem("theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // this browser keeps nothing
  }
}
