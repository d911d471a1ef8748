// @ts-check
/** Plans what changes the page while text comes: together, because each frame costs, even if little changes in it. */

const SOON_MS = 16; // in which a frame comes without a timer
const TOGETHER_MS = 100; // by which something may be earlier than it is due, to be done with something else

/** What is planned, and when it is due. @type {Map<() => void, number>} */
const planned = new Map();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let timerAt = 0;
let frame = 0; // that was asked for, 0 if none was

/**
 * Call a function once, in a frame, in so many milliseconds or a little earlier. A function that is planned already
 * stays so.
 * @param {() => void} does @param {number} [after] milliseconds
 */
export function plan(does, after = 0) {
  if (planned.has(does)) return;
  const due = performance.now() + Math.max(0, after);
  planned.set(does, due);
  if (!frame && !(timer && timerAt <= due)) wait(due);
}

/** Take a function back. @param {() => void} does */
export const unplan = (does) => void planned.delete(does);

/** @param {number} due */
function wait(due) {
  clearTimeout(timer);
  const left = due - performance.now();
  if (left <= SOON_MS) return ask();
  timerAt = due;
  timer = setTimeout(ask, left);
}

function ask() {
  timer = undefined;
  frame = requestAnimationFrame(show);
}

function show() {
  frame = 0;
  const until = performance.now() + TOGETHER_MS;
  const together = [...planned].filter(([, due]) => due <= until);
  try {
    for (const [does] of together) if (planned.delete(does)) does();
  } finally {
    if (planned.size && !timer) wait(Math.min(...planned.values()));
  }
}
