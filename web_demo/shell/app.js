// @ts-check
/** The demo page: one connection, on client.js's public interface, and the rooms that use it. */

import { connect } from "../client.js";
import { find } from "./dom.js";
import { DRAWERS, startDrawers } from "./drawers.js";
import { ROOMS, startRooms } from "./rooms.js";
import { PageSocket } from "./socket.js";

const NOT_AUTHENTICATED = 4401;
const STATES = {
  connecting: "connecting",
  open: "connected",
  waiting: "connection lost, trying again",
  closed: "disconnected",
};

/**
 * What a room is opened with. `ready` is what the gateway said last, null until it has.
 * @typedef {{client: import("../client.js").Client, ready: import("../client.js").Ready | null}} App
 */

const token = takeToken();
const client = connect(undefined, { lazy: true, WebSocket: PageSocket, onstate: showState, ...(token ? { token } : {}) });
/** @type {App} */
const app = { client, ready: null };
find("#door form").addEventListener("submit", useToken);
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, keepPage);
startDrawers(DRAWERS, find("#drawers"), find("#drawer"), app);
await startRooms(ROOMS, find("#rooms"), find("#room"), app);
client.open();

/** Return the token of this tab, and remove it from the address if it is there. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("token");
}

/** @param {Event} event */
function useToken(event) {
  event.preventDefault();
  sessionStorage.setItem("token", find("#token").value.trim());
  location.reload();
}

/** @param {import("../client.js").ConnectionState} state @param {number} [closeCode] @param {string} [reason] */
function showState(state, closeCode, reason) {
  const shown = find("#state");
  shown.textContent = reason ? `${STATES[state]}: ${reason}` : STATES[state];
  shown.dataset.state = state;
  if (state === "open") showReady();
  if (closeCode === NOT_AUTHENTICATED) askForToken();
}

function askForToken() {
  find("#state").textContent = "token needed";
  find("#door-reason").textContent = token
    ? "This token is wrong, or it has expired."
    : "This gateway needs an access token.";
  find("#door").showModal();
}

async function showReady() {
  try {
    app.ready = await client.ready;
    const { models } = app.ready;
    const several = models.length > 1;
    find("#model").textContent = several ? "" : models.join("");
    const select = find("#models");
    const chosen = select.value;
    select.replaceChildren(...models.map((name) => new Option(name)));
    select.value = models.includes(chosen) ? chosen : models[0];
    select.hidden = !several;
  } catch {
    // `showState` has shown the reason
  }
}

/** Keep the browser from opening a file that is dropped beside a conversation. @param {Event} event */
function keepPage(event) {
  event.preventDefault();
}
