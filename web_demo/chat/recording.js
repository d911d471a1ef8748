// @ts-check
/** The pace of an answer, kept with it. No I/O, no clock. */

/**
 * Record the pace of several answers: for each piece of text the milliseconds since the one before, and its length in
 * characters, which is negative for thinking.
 */
export function createRecording() {
  /** @type {{last: number, pace: number[]}[]} by answer */
  const answers = [];
  return {
    /** @param {number} now @param {import("../client.js").Chunk} chunk */
    add(now, { text, channel, choice = 0 }) {
      const one = (answers[choice] ??= { last: now, pace: [] });
      one.pace.push(Math.round(now - one.last), channel === "reasoning" ? -text.length : text.length);
      one.last = now;
    },
    /** Forget everything, because all of it comes again. */
    clear: () => void answers.splice(0),
    /** @param {number} answer */
    of: (answer) => answers[answer]?.pace ?? [],
  };
}
