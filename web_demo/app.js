// @ts-check
/** The demo page: one connection, one or two conversations, on client.js's public interface. */

import { connect } from "./client.js";
import { find } from "./dom.js";
import { createPane } from "./pane.js";
import { watchSettings } from "./settings.js";

const NOT_AUTHENTICATED = 4401;
const STATES = {
  connecting: "connecting",
  open: "connected",
  waiting: "connection lost, trying again",
  closed: "disconnected",
};

const token = takeToken();
const client = connect(undefined, { onstate: showState, ...(token ? { token } : {}) });
let maxFrameBytes = Infinity; // until the gateway has sent its limits
const panes = [addPane()];
showReady();
watchSettings();
find("#split").addEventListener("click", toggleSplit);
find("#door form").addEventListener("submit", useToken);
document.addEventListener("keydown", onKey);
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, keepPage);
panes[0].focus();

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

/** @param {import("./client.js").ConnectionState} state @param {number} [closeCode] @param {string} [reason] */
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
    const { models, limits } = await client.ready;
    maxFrameBytes = limits.max_frame_bytes;
    const several = models.length > 1;
    find("#model").textContent = several ? "" : models.join("");
    const select = find("#models");
    const chosen = select.value;
    select.replaceChildren(...models.map((/** @type {string} */ name) => new Option(name)));
    select.value = models.includes(chosen) ? chosen : models[0];
    select.hidden = !several;
  } catch {
    // `showState` has shown the reason
  }
}

function addPane() {
  return createPane(client, () => maxFrameBytes);
}

/** Keep the browser from opening a file that is dropped beside a conversation. @param {Event} event */
function keepPage(event) {
  event.preventDefault();
}

function toggleSplit() {
  const button = find("#split");
  if (panes.length === 1) panes.push(addPane());
  else panes.pop()?.remove();
  button.setAttribute("aria-pressed", String(panes.length === 2));
  find("#panes").classList.toggle("two", panes.length === 2);
  panes[panes.length - 1].focus();
}

/** On Esc, stop the answer in the focused conversation, or else every answer. @param {KeyboardEvent} event */
function onKey(event) {
  if (event.key !== "Escape" || find("#settings").matches(":popover-open")) return;
  const focused = panes.filter((pane) => pane.hasFocus() && pane.running());
  for (const pane of focused.length ? focused : panes) pane.stop();
}
