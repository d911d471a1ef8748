// @ts-check
/** Plays a tape to the page's own client, in place of a gateway. */

import { connect } from "../client.js";
import { tellWatchers } from "../shell/socket.js";

/** @typedef {import("./tape.js").Tape} Tape */

/** What a client hears first, if the tape has not recorded it. */
const READY = { type: "ready", protocol: "mlx-gateway.v1", server: "tape", epoch: "tape", connection: "tape", models: [], limits: {} };

/**
 * Return a client that hears the tape, and what moves the tape on.
 * @param {Tape} tape
 * @param {{asked: (id: string) => void, cut: () => void}} hooks `asked` is called before the first frame of a generation
 */
export function createPlayer({ frames }, hooks) {
  /** @type {TapeSocket | null} */
  let socket = null;
  let next = 0; // index of the next frame
  const seen = new Set();

  class TapeSocket {
    /** @type {((event: {data: string}) => void) | undefined} */
    onmessage;
    readyState = 1;
    constructor() {
      socket = this;
    }
    /** @param {string} text */
    send(text) {
      if (text === '{"type":"ping"}') hear({ type: "pong" }); // a tape that stands still is no lost connection
    }
    close() {
      this.readyState = 3;
    }
  }

  const client = connect("ws://tape.invalid", { WebSocket: TapeSocket });
  hear(READY);

  /** @param {any} frame */
  function hear(frame) {
    socket?.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** @param {import("./tape.js").Recorded} recorded @param {boolean} told whether who watches the socket hears of it */
  function play([, way, frame], told) {
    if (told) tellWatchers(typeof frame === "string" ? frame : JSON.stringify(frame), way);
    if (way === "closed") return hooks.cut();
    if (way === "opened" || frame.type === "ready" || typeof frame.id !== "string") return;
    if (way === "out" && frame.type !== "generate") return;
    if (!seen.has(frame.id)) {
      seen.add(frame.id);
      hooks.asked(frame.id);
    }
    if (way === "in") hear(frame);
  }

  return {
    client,
    /** Play all up to a time, in milliseconds. @param {number} time @param {boolean} told */
    to(time, told) {
      while (next < frames.length && frames[next][0] <= time) {
        next += 1;
        play(frames[next - 1], told);
      }
    },
    /** The time of the next frame, 0 if there is none. */
    get nextAt() {
      return frames[next]?.[0] ?? 0;
    },
    get over() {
      return next >= frames.length;
    },
    close: () => client.close(),
  };
}
