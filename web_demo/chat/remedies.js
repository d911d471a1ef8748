// @ts-check
/** What a person can do about an error, by its code. */

/** @type {Record<string, string>} */
const REMEDIES = {
  context_too_long: "Begin a new conversation, or ask with fewer or shorter files.",
  overloaded: "The server has as much to do as it takes. Try again in a moment.",
  rate_limited: "You have asked often in a short time. Try again in a moment.",
  unknown_model: "Choose another model at the upper edge of the page.",
  unauthorized: "Give a token at the upper edge of the page.",
  invalid_request: "Something in the settings may be what the server doesn't take.",
  unsupported: "This model can't do that; the settings say what it can.",
  model_error: "The server's log says more.",
  internal: "The server's log says more.",
  forbidden: "Your token doesn't allow it; another one may.",
  invalid_frame: "The page and the server may be of different versions. Load the page again.",
  duplicate_id: "Ask again.",
  slow_client: "The connection was too slow for the answer. Ask again.",
  not_resumable: "The server has forgotten it meanwhile. Ask again.",
  shutting_down: "The server is being stopped; ask again when it is back.",
};

/** @param {string} code */
export const remedyOf = (code) => REMEDIES[code] ?? "";
