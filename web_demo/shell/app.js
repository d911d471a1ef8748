// @ts-check
/** The demo page: one connection, on client.js's public interface, and the rooms that use it. */

import { connect } from "../client.js";
import { createModels } from "../settings/models.js";
import { createSettings } from "../settings/state.js";
import { openStore } from "../store/database.js";
import { find } from "./dom.js";
import { apple, createCommands } from "./commands.js";
import { createDoor } from "./door.js";
import { DRAWERS, startDrawers } from "./drawers.js";
import { showModels } from "./header.js";
import { loaded, ROOMS, startRooms } from "./rooms.js";
import { cutSocket, PageSocket, traffic } from "./socket.js";
import { say } from "./speaker.js";
import { watchTheme } from "./theme_button.js";

const STATES = {
  connecting: "connecting",
  open: "connected",
  waiting: "connection lost, trying again",
  closed: "disconnected",
};
/** @type {Record<string, string>} */
const DRAWER_KEYS = { settings: "s", wire: "w", engine: "g" };
const IDLE_MS = 500; // after which a page without idle callbacks has nothing else to do
const QUIET_MS = 1500; // for which a connection must be gone before it is spoken of

/** What rooms and drawers are opened with. @typedef {ReturnType<typeof createApp>} App */

const app = createApp();
watchTheme(find("#theme-button"));
meterLater();
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, keepPage);
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("keydown", keepEscape);
find("#models").addEventListener("change", () => app.models.choose(find("#models").value));
await startRooms(ROOMS, find("#rooms"), find("#room"), app);
app.client.open();

function createApp() {
  const store = openStore();
  const door = createDoor(find("#door"), (token) => {
    options.token = token;
    client.open();
  });
  const token = door.token();
  /** @type {import("../client.js").ConnectOptions} */
  const options = { lazy: true, onstate: showState, WebSocket: PageSocket, ...(token ? { token } : {}) };
  const client = connect(undefined, options);
  const settings = createSettings(store);
  const models = createModels({ token: door.token, store });
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let quiet;
  let wasLost = false;
  const commands = createCommands();
  /** @type {(() => Promise<import("./commands.js").Command[]>)[]} */
  const finders = [];
  const found = async () => (await Promise.all(finders.map((one) => one()))).flat();
  const palette = later(async () => (await import("./palette.js")).createPalette(find("#palette"), commands, found));
  const keys = later(async () => (await import("./keys.js")).createKeys(find("#keys"), commands));
  const made = {
    client,
    /** What the gateway said last, null until it has. @type {import("../client.js").Ready | null} */
    ready: null,
    /** What the browser keeps. */
    store,
    settings,
    models,
    /** End the connection as a network would; the client makes another one, and goes on. */
    cut: cutSocket,
    token: door.token,
    commands,
    /** Add commands to the palette that take time to find. @param {() => Promise<import("./commands.js").Command[]>} source */
    finds: (source) => void finders.push(source),
    drawers: /** @type {ReturnType<typeof startDrawers>} */ (/** @type {unknown} */ (null)),
  };
  made.drawers = startDrawers(DRAWERS, find("#drawers"), find("#drawer"), made);
  commands.add(() => [
    { id: "palette", label: "Find anything to do", group: "Page", shown: apple() ? "⌘ K" : "Ctrl K", run: palette },
    { id: "keys", label: "This list of keys", group: "Page", keys: ["?"], run: keys },
    ...ROOMS.map(({ id, label }, index) => ({
      id, label: `Go to ${label}`, group: "Page", keys: [String(index + 1)], run: () => void (location.hash = `#${id}`),
    })),
    ...DRAWERS.filter(({ id }) => !find(`#${id}-button`).hidden).map(({ id, label }) => ({
      id, label: `${label}, open and close`, group: "Page", keys: [DRAWER_KEYS[id] ?? ""], run: () => find(`#${id}-button`).click(),
    })),
    ...(made.drawers.shown() ? [{ id: "drawer-close", label: "Close the drawer", group: "Page", shown: "Esc", run: made.drawers.close }] : []),
    { id: "theme", label: "Light, dark, or as the system has it", group: "Page", keys: ["t"], run: () => find("#theme-button").click() },
  ]);
  find("#palette-button").textContent = apple() ? "⌘K" : "Ctrl K";
  find("#palette-button").addEventListener("click", palette);
  find("#keys-button").addEventListener("click", keys);
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(apple() ? event.metaKey : event.ctrlKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    palette();
  });
  models.events.addEventListener("change", offer);
  settings.events.addEventListener("wrong", async (event) => {
    const drawer = await made.drawers.open("settings");
    drawer?.focus(/** @type {CustomEvent} */ (event).detail);
  });
  return made;

  /** @param {import("../client.js").ConnectionState} state @param {number} [closeCode] @param {string} [reason] */
  function showState(state, closeCode, reason) {
    const shown = find("#state");
    const text = door.refused(closeCode) ? "token needed" : reason ? `${STATES[state]}: ${reason}` : STATES[state];
    shown.textContent = shown.title = text;
    shown.dataset.state = state;
    speakOf(state, text);
    if (state === "open") showReady();
  }

  /** Speak of a connection that is lost for longer, and of its return: of each once. @param {string} state @param {string} text */
  function speakOf(state, text) {
    clearTimeout(quiet);
    if (state === "open") {
      if (wasLost) say("Connected again.");
      wasLost = false;
    } else if (!wasLost && client) {
      quiet = setTimeout(() => {
        wasLost = true;
        say(text);
      }, QUIET_MS);
    }
  }

  async function showReady() {
    try {
      made.ready = await client.ready;
      door.opened();
      models.named(made.ready.models);
      await models.refresh();
    } catch {
      return; // `showState` has shown the reason
    }
    whenIdle(() => {
      for (const room of ROOMS) if (room.offline) loaded(room).catch(() => {}); // the next connection tries again
    });
  }

  /** Hold the settings to what the server and the chosen model offer. */
  function offer() {
    showModels(models);
    const longest = made.ready?.limits.max_answer_tokens ?? Infinity;
    settings.offered({ model: models.chosen(), longest, several: models.all.length > 1 });
  }
}

/** Load the meter when there is something to measure. */
function meterLater() {
  traffic.watch(async () => {
    traffic.watch(() => {});
    const meter = await import("./meter.js").catch(() => null);
    if (meter) meter.createMeter(find("#meter"), traffic);
    else meterLater(); // the next answer tries again
  });
}

/** Call a function once the page has nothing else to do. @param {() => void} does */
function whenIdle(does) {
  if ("requestIdleCallback" in globalThis) requestIdleCallback(does);
  else setTimeout(does, IDLE_MS); // Safari
}

/** Return what opens something that is made when it is first opened. @param {() => Promise<{open: () => void}>} make */
function later(make) {
  /** @type {Promise<{open: () => void}> | null} */
  let made = null;
  return async () => (await (made ??= make())).open();
}

/** Keep the key that closes a dialog from those who would stop what runs behind it. @param {KeyboardEvent} event */
function keepEscape(event) {
  if (event.key === "Escape") event.stopPropagation();
}

/** Keep the browser from opening a file that is dropped beside a conversation. @param {Event} event */
function keepPage(event) {
  event.preventDefault();
}
