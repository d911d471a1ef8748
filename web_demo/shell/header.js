// @ts-check
/** Shows the chosen model in the header, with what is known of it. */

import { brief, factsOf } from "../settings/models.js";
import { find } from "./dom.js";

/** @param {ReturnType<typeof import("../settings/models.js").createModels>} models */
export function showModels({ all, chosen }) {
  const model = chosen();
  const several = all.length > 1;
  const select = find("#models");
  const names = all.map(({ id }) => id);
  const before = [...select.options].map((/** @type {HTMLOptionElement} */ { value }) => value);
  if (names.join("\n") !== before.join("\n")) select.replaceChildren(...names.map((name) => new Option(name)));
  if (model) select.value = model.id;
  select.hidden = !several;
  find("#model").textContent = several ? "" : (model?.id ?? "");
  const facts = find("#model-facts");
  facts.textContent = model ? briefOf(model) : "";
  facts.title = model ? factsOf(model).map(({ text }) => text).join(", ") : "";
}

/** @param {import("../settings/values.js").Model} model */
function briefOf({ context_window: window, loaded }) {
  return [window ? brief(window) : "", loaded === false ? "not loaded" : ""].filter(Boolean).join(" · ");
}
