// @ts-check
/** The meter in the header: how fast text comes in all, and how many answers run. At rest it does nothing. */

import { createCurve } from "./curve.js";
import { find } from "./dom.js";
import { plan } from "./frames.js";
import { createRate } from "./rate.js";

const EVERY_MS = 400;
const POINTS = 25; // ten seconds

/** @param {HTMLElement} root as the page has it at rest @param {ReturnType<typeof import("./traffic.js").createTraffic>} traffic of which some may run already */
export function createMeter(root, traffic) {
  const rate = createRate();
  const number = find("b", root);
  const running = find(".meter-answers", root);
  const curve = createCurve(find(".curve", root), { points: POINTS, least: 20 });
  let counted = 0;
  let live = false;
  traffic.watch(begin);
  if (traffic.running) begin();

  function begin() {
    put(running, saidOf(traffic));
    if (live) return;
    live = true;
    measured(); // what comes from now on is counted
    root.toggleAttribute("data-live", true);
    plan(show, EVERY_MS);
  }

  /** Return how many pieces of text came a second, lately. */
  function measured() {
    rate.add(traffic.pieces - counted);
    counted = traffic.pieces;
    return Math.round(rate.rate(performance.now()));
  }

  function show() {
    const now = measured();
    put(number, now.toLocaleString("en"));
    put(running, saidOf(traffic));
    curve.add(now);
    live = now > 0 || traffic.running > 0;
    if (live) return plan(show, EVERY_MS);
    root.toggleAttribute("data-live", false);
    rate.pause();
  }
}

/** Say what runs here: of what others ask the gateway, a connection is told nothing. @param {{running: number, queued: number}} traffic */
function saidOf({ running, queued }) {
  if (!running) return "idle";
  if (queued) return `${running - queued} of ${running} run here`;
  return running === 1 ? "1 answer here" : `${running} answers here`;
}

/** @param {HTMLElement} element @param {string} text */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
