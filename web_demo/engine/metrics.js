// @ts-check
/** Prometheus' text format, read into numbers, and what two readings come to. No I/O. */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** @typedef {{bounds: number[], counts: number[], total: number, count: number}} Histogram `counts` up to each bound */
/** @typedef {{at: number, numbers: Map<string, number>, histograms: Map<string, Histogram>}} Reading */

/** @param {string} text @param {number} at in milliseconds @returns {Reading} */
export function readMetrics(text, at) {
  /** @type {Map<string, number>} */
  const numbers = new Map();
  /** @type {Map<string, Histogram>} */
  const histograms = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const [, name, labels = "", written] = found;
    const value = Number(written.replace("Inf", "Infinity"));
    const le = [...labels.matchAll(LABEL)].find(([, label]) => label === "le")?.[2];
    if (le !== undefined) {
      const histogram = histogramOf(histograms, name.replace(/_bucket$/, ""));
      histogram.bounds.push(Number(le.replace("Inf", "Infinity")));
      histogram.counts.push(value);
    } else numbers.set(name, (numbers.get(name) ?? 0) + value); // the sum over other labels
  }
  for (const [name, histogram] of histograms) {
    histogram.total = numbers.get(`${name}_sum`) ?? 0;
    histogram.count = histogram.counts.at(-1) ?? 0;
  }
  return { at, numbers, histograms };
}

/** @param {Map<string, Histogram>} histograms @param {string} name */
function histogramOf(histograms, name) {
  const known = histograms.get(name) ?? { bounds: [], counts: [], total: 0, count: 0 };
  histograms.set(name, known);
  return known;
}

/**
 * Return how much a counter grew a second; 0 when the gateway was restarted in between.
 * @param {Reading | null} before @param {Reading} now @param {string} name
 */
export function rateOf(before, now, name) {
  const [was, is] = [before?.numbers.get(name), now.numbers.get(name)];
  if (!before || was === undefined || is === undefined || is < was || now.at <= before.at) return 0;
  return (1000 * (is - was)) / (now.at - before.at);
}

/**
 * Return what is not exceeded by a part of the values since a reading, null if there were none.
 * @param {Reading | null} before @param {Reading} now @param {string} name @param {number} part such as 0.5
 */
export function quantileOf(before, now, name, part) {
  const is = now.histograms.get(name);
  if (!is) return null;
  const was = before?.histograms.get(name)?.counts ?? [];
  const counts = is.counts.map((count, index) => Math.max(0, count - (was[index] ?? 0)));
  const all = counts.at(-1) ?? 0;
  if (!all) return null;
  const index = counts.findIndex((count) => count >= part * all);
  const [low, high] = [index ? is.bounds[index - 1] : 0, is.bounds[index]];
  if (high === Infinity) return low;
  const [below, within] = [index ? counts[index - 1] : 0, counts[index] - (index ? counts[index - 1] : 0)];
  return low + ((part * all - below) / within) * (high - low);
}

/** Return the mean of the values since a reading, null if there were none. @param {Reading | null} before @param {Reading} now @param {string} name */
export function meanOf(before, now, name) {
  const [was, is] = [before?.histograms.get(name), now.histograms.get(name)];
  const count = (is?.count ?? 0) - (was?.count ?? 0);
  return is && count > 0 ? (is.total - (was?.total ?? 0)) / count : null;
}
