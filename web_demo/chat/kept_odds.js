// @ts-check
/** How sure the model was of an answer, as it is kept with the answer. No I/O. */

/** @typedef {import("./sureness.js").Piece} Piece */
/** @typedef {[token: string, logprob: number]} KeptOdds */
/** @typedef {[length: number, tokens: [...KeptOdds, others: KeptOdds[]][]]} KeptPiece `length` is that of its text */

const MOST = 4000; // alternatives that are kept of an answer, its own tokens among them; a browser has them all in memory
const rounded = (/** @type {number} */ logprob) => Math.round(1e4 * logprob) / 1e4;

/**
 * Return pieces without their texts, which the answer has. After many, only the lengths are kept.
 * @param {Piece[]} pieces
 */
export function keptOf(pieces) {
  let count = 0;
  return pieces.map(({ text, tokens }) => {
    count += tokens.reduce((sum, { top_logprobs }) => sum + 1 + (top_logprobs?.length ?? 0), 0);
    return /** @type {KeptPiece} */ ([text.length, count > MOST ? [] : tokens.map(keptToken)]);
  });
}

/** @param {import("../client.js").TokenLogprob} token @returns {KeptPiece[1][0]} */
function keptToken({ token, logprob, top_logprobs: top = [] }) {
  return [token, rounded(logprob), top.map((one) => [one.token, rounded(one.logprob)])];
}

/** Return the pieces of a text again, null if they are those of another one. @param {KeptPiece[]} kept @param {string} text */
export function piecesFrom(kept, text) {
  let at = 0;
  /** @type {Piece[]} */
  const pieces = [];
  for (const [length, tokens] of kept) pieces.push({ text: text.slice(at, (at += length)), tokens: tokens.map(tokenFrom) });
  return at === text.length ? pieces : null;
}

/** @param {KeptPiece[1][0]} kept */
function tokenFrom([token, logprob, others]) {
  const top = others.map(([name, value]) => ({ token: name, logprob: value, bytes: null }));
  return { token, logprob, bytes: null, top_logprobs: top };
}
