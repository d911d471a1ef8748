// @ts-check
/** Shows the chosen model in the header, with what is known of it. */

import { brief, factsOf } from "../settings/models.js";
import { find, make } from "./dom.js";

/** @param {ReturnType<typeof import("../settings/models.js").createModels>} models */
export function showModels({ all, chosen }) {
  const model = chosen();
  const several = all.length > 1;
  const select = find("#models");
  const ids = all.map(({ id }) => id);
  const before = [...select.options].map((/** @type {HTMLOptionElement} */ { value }) => value);
  if (ids.join("\n") !== before.join("\n")) select.replaceChildren(...ids.map((id) => new Option(shortest(id, ids), id)));
  if (model) select.value = model.id;
  select.hidden = !several;
  select.title = model?.id ?? "";
  showName(find("#model"), several ? "" : (model?.id ?? ""));
  const facts = find("#model-facts");
  facts.textContent = model ? briefOf(model) : "";
  facts.title = model ? factsOf(model).map(({ text }) => text).join(", ") : "";
}

/** Show a model's name; where there is little room, its owner is cut and not the name. @param {HTMLElement} root @param {string} id */
function showName(root, id) {
  if (root.textContent === id) return;
  const name = nameOf(id);
  const owner = id.slice(0, id.length - name.length);
  root.title = id;
  root.replaceChildren(...(owner ? [make("span", { class: "owner" }, owner)] : []), make("span", { class: "name" }, name));
}

/** Return what a model is called without its owner. @param {string} id such as owner/name */
const nameOf = (id) => /^[^/]+\/([^/]+)$/.exec(id)?.[1] ?? id;

/** Return the name that tells a model from the others. @param {string} id @param {string[]} ids */
function shortest(id, ids) {
  const name = nameOf(id);
  return ids.some((other) => other !== id && nameOf(other) === name) ? id : name;
}

/** @param {import("../settings/values.js").Model} model */
function briefOf({ context_window: window, loaded }) {
  return [window ? brief(window) : "", loaded === false ? "not loaded" : ""].filter(Boolean).join(" · ");
}
