// @ts-check
/** Counts pieces of text, or frames of a screen, and says how many there are a second. No I/O. */

const OVER_MS = 1500; // over which a rate is measured

/** @param {number} [overMs] */
export function createRate(overMs = OVER_MS) {
  /** @type {{at: number, count: number}[]} */
  let samples = [];
  let total = 0;

  return {
    /** Count one, or some. */
    add(some = 1) {
      total += some;
    },
    get total() {
      return total;
    },
    /** Return how many were counted a second, lately. @param {number} now in milliseconds; never less than before */
    rate(now) {
      samples.push({ at: now, count: total });
      const kept = samples.findLastIndex(({ at }) => at <= now - overMs);
      if (kept > 0) samples = samples.slice(kept);
      const [first] = samples;
      return now > first.at ? (1000 * (total - first.count)) / (now - first.at) : 0;
    },
    /** Forget all but the total, because nothing was counted for a while. */
    pause() {
      samples = [];
    },
  };
}
