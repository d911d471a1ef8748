// @ts-check
/** Marks an answer that has ended by what was kept of how sure the model was. */

import { createColumn, loadMarks } from "./column.js";

/**
 * Return a column with an answer and its marks; null where what is kept doesn't fit its text.
 * @param {import("../store/tree.js").Turn} turn @param {boolean} verbatim
 */
export async function columnOf({ content, reasoning, thought, odds = [] }, verbatim) {
  const pieces = (await loadMarks()).piecesFrom(odds, String(content));
  if (!pieces) return null;
  const column = createColumn(verbatim, true);
  if (reasoning) column.add({ type: "reasoning", channel: "reasoning", text: reasoning });
  column.put(pieces);
  column.end();
  if (thought) column.thoughtFor(thought);
  return column;
}
