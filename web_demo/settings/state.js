// @ts-check
/** The settings of this visit: kept in the browser, held to what the server offers, read by who asks the model. */

import { parseTools, toolsOf } from "../tools/tools.js";
import { constraintOf, parseBiases, parseVariables } from "./constraints.js";
import { PRESETS, SETTINGS } from "./table.js";
import { ANYTHING, changed, optionsOf, restored, usual, withPreset } from "./values.js";

/** @typedef {import("./values.js").Values} Values */
/** @typedef {import("./values.js").Offer} Offer */
/** @typedef {{name: string, values: Record<string, any>, says?: string}} Preset */
/** @typedef {ReturnType<typeof createSettings>} Settings */

const KEEP_MS = 250; // after the last change

/**
 * What reads the texts that may be wrong, in the order of the drawer.
 * @type {Record<string, (values: Values) => any>}
 */
const READERS = {
  form: (values) => constraintOf(values.form, values.texts[values.form] ?? ""),
  functions: async ({ functions }) => (functions.trim() ? (await import("../tools/functions.js")).functionsOf(functions) : []),
  tools: (values) => parseTools(values.tools),
  biases: (values) => parseBiases(values.biases),
  variables: (values) => parseVariables(values.variables),
};

/** @param {any} kept @returns {Preset[]} */
const presetsOf = (kept) => (Array.isArray(kept) ? kept.filter((one) => typeof one?.name === "string" && one.values) : []);

/** @param {any} values @param {any} changes */
const merged = (values, changes) => ({ ...values, ...changes, texts: { ...values?.texts, ...changes.texts } });

/** Return what changes of some values, so that nothing else of another tab is. @param {any} values @param {any} changes */
const differing = (values, changes = {}) => Object.fromEntries(Object.entries(changes).filter(([id, value]) => value !== values[id]));

/** @param {Promise<import("../store/database.js").Store>} opening where the settings are kept */
export function createSettings(opening) {
  let values = usual();
  /** Presets that a person has made. @type {Preset[]} */
  let own = [];
  /** @type {Offer} */
  let offer = ANYTHING;
  const events = new EventTarget();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** What is not kept yet. @type {Partial<Values>} */
  let pending = {};

  const loaded = opening.then(async (store) => {
    values = merged(restored(await store.value("settings")), pending);
    store.watch(readOwn);
    await readOwn();
    tell();
    return store;
  });

  /** Read the presets, which other tabs may change. */
  async function readOwn() {
    const kept = presetsOf(await (await opening).value("presets"));
    if (JSON.stringify(kept) === JSON.stringify(own)) return;
    own = kept;
    tell();
  }

  function tell() {
    events.dispatchEvent(new Event("change"));
  }

  function keep() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const store = await loaded;
      const changes = pending;
      pending = {};
      store.edit("values", "settings", (is) => merged(is, changes)).catch(() => {});
    }, KEEP_MS);
  }

  /** @param {Partial<Values>} changes */
  function change(changes) {
    const texts = differing(values.texts, changes.texts);
    pending = merged(pending, { ...differing(values, changes), texts });
    values = merged(values, changes);
    keep();
    tell();
  }

  /** @param {(own: Preset[]) => Preset[]} make */
  async function editOwn(make) {
    own = make(own);
    tell();
    await (await opening).edit("values", "presets", (is) => (own = make(presetsOf(is)))).catch(() => {});
    tell();
  }

  /** Return what a text means, or an Error. @param {string} id of a setting @param {Values} [given] */
  async function read(id, given = values) {
    try {
      return await READERS[id](given);
    } catch (error) {
      return /** @type {Error} */ (error);
    }
  }

  /** Return the tools of some values, those left out that are wrong. @param {Values} [given] @returns {Promise<import("../tool_loop.js").Tool[]>} */
  async function tools(given = values) {
    if (offer.model?.tools === false) return [];
    const [users, functions] = await Promise.all([read("tools", given), read("functions", given)]);
    const right = [users, functions].map((some) => (some instanceof Error ? [] : some));
    return toolsOf(given.calculator, right[0], right[1]);
  }

  return {
    /** Dispatches "change" whenever the values, the presets or the offer change, "wrong" with the `id` of a setting. */
    events,
    /** Resolves when what was kept is there. */
    loaded,
    get values() {
      return values;
    },
    get offer() {
      return offer;
    },
    get own() {
      return own;
    },
    change,
    read,
    tools,
    /** The ids of the settings whose texts may be wrong. */
    readable: Object.keys(READERS),
    /** @param {Offer} next */
    offered(next) {
      offer = next;
      tell();
    },
    /** Give a setting its first value back. @param {string} id */
    reset(id) {
      change({ [id]: SETTINGS.find((setting) => setting.id === id)?.fallback });
    },
    resetAll() {
      change({ ...usual(), texts: values.texts });
    },
    /** @param {Record<string, any>} preset */
    use(preset) {
      change(withPreset(values, preset));
    },
    presets: () => [...PRESETS, ...own],
    /** Keep what is set now under a name. @param {string} name */
    keepAs(name) {
      const set = Object.fromEntries(changed(values).map(({ id }) => [id, values[id]]));
      const texts = values.form in values.texts ? { texts: { [values.form]: values.texts[values.form] } } : {};
      return editOwn((all) => [...all.filter((one) => one.name !== name), { name, values: { ...set, ...texts } }]);
    },
    /** @param {string} name */
    forget: (name) => editOwn((all) => all.filter((one) => one.name !== name)),
    changed: () => changed(values, offer),
    /**
     * Return the options of a generation and its tools; null if a text is wrong. "wrong" is dispatched then, and
     * nothing must be sent.
     * @param {Values} [given]
     */
    async chosen(given = values) {
      await loaded;
      for (const id of Object.keys(READERS)) {
        if (!((await read(id, given)) instanceof Error)) continue;
        events.dispatchEvent(new CustomEvent("wrong", { detail: id }));
        return null;
      }
      const some = await tools(given);
      return { options: optionsOf(given, some.map(({ name }) => name), offer), tools: some, values: given };
    },
  };
}
