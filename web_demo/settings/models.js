// @ts-check
/** The models of the server, what is known of them, and which one is asked. */

/** @typedef {import("./values.js").Model} Model */

const KEY = "model"; // of what the browser keeps

/** @param {{token: () => string | null, store: Promise<import("../store/database.js").Store>}} app */
export function createModels({ token, store }) {
  const events = new EventTarget();
  /** @type {Model[]} */
  let all = [];
  let wanted = "";
  store.then(async (opened) => {
    wanted ||= (await opened.value(KEY)) ?? "";
    tell();
  });

  function tell() {
    events.dispatchEvent(new Event("change"));
  }

  const chosen = () => all.find(({ id }) => id === wanted) ?? all[0] ?? null;

  return {
    /** Dispatches "change" whenever the models, or the chosen one, change. */
    events,
    get all() {
      return all;
    },
    /** The model that is asked, null while none is known. */
    chosen,
    /** @param {string} id */
    async choose(id) {
      wanted = id;
      tell();
      await (await store).keep(KEY, id).catch(() => {});
    },
    /** Take the names of a `ready` frame, with what is known of them already. @param {string[]} names */
    named(names) {
      all = names.map((id) => all.find((one) => one.id === id) ?? { id });
      tell();
    },
    /** Ask the server what it knows of its models. */
    async refresh() {
      const secret = token();
      try {
        const asked = await fetch("/v1/models", secret ? { headers: { Authorization: `Bearer ${secret}` } } : {});
        const { data } = await asked.json();
        if (!asked.ok || !Array.isArray(data)) return;
        all = data;
        tell();
      } catch {
        // The connection's state is shown anyway, and the names are known from it.
      }
    },
  };
}

/** Return a number of tokens in few signs, such as 32k. @param {number} tokens */
export function brief(tokens) {
  if (tokens < 1000) return String(tokens);
  const thousands = tokens / (tokens % 1024 === 0 ? 1024 : 1000);
  return thousands < 1000 ? `${Math.round(thousands)}k` : `${(thousands / 1024).toFixed(1).replace(/\.0$/, "")}M`;
}

/**
 * Return what is known of a model, in few words each.
 * @param {Model} model
 * @returns {{text: string, is: boolean | null}[]} null is neither good nor bad
 */
export function factsOf({ context_window: context, loaded, vision, tools, thinking, base }) {
  const able = (/** @type {boolean | null | undefined} */ is, /** @type {string} */ yes, /** @type {string} */ no) =>
    is === null || is === undefined ? [] : [{ text: is ? yes : no, is }];
  return [
    ...(context ? [{ text: `reads ${context.toLocaleString("en")} tokens`, is: null }] : []),
    ...able(tools, "calls tools", "no tools"),
    ...able(vision, "sees pictures", "no pictures"),
    ...able(thinking, "can think aloud", "no thinking aloud"),
    ...(base ? [{ text: `adapter of ${base}`, is: null }] : []),
    ...(loaded === undefined ? [] : [{ text: loaded ? "loaded" : "loads when asked", is: null }]),
  ];
}
