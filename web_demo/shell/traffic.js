// @ts-check
/** Counts what goes over a connection: the answers that run on it, and their pieces of text. No I/O. */

const CHUNK = '{"type":"chunk"';
const BEGINS = /^\{"type":"(?:generate|resume)"/;
const ABOUT_ONE = /^\{"type":"(\w+)","id":"([^"\\]*)"/;
const ID_LAST = /"id":"([^"\\]*)"\}$/; // of a request, which may be long
const LONGEST_ID = 80;

export function createTraffic() {
  /** The ids of the answers that run, and whether each has begun. @type {Map<string, boolean>} */
  const answers = new Map();
  let pieces = 0;
  let begun = () => {};

  return {
    /** @param {string} text of a frame to the gateway */
    sent(text) {
      if (!BEGINS.test(text)) return;
      const id = ID_LAST.exec(text.slice(-LONGEST_ID))?.[1] ?? JSON.parse(text).id;
      answers.set(id, text.startsWith('{"type":"resume"'));
      begun();
    },
    /** Count a frame of the gateway; most are chunks, which are told by their first characters. @param {string} text */
    received(text) {
      if (text.startsWith(CHUNK)) {
        pieces += 1;
        return;
      }
      const [, type, id = ""] = ABOUT_ONE.exec(text) ?? [];
      if (!answers.has(id)) return;
      if (type === "done" || type === "error") answers.delete(id);
      else if (type === "started") answers.set(id, true);
    },
    /** Forget what ran: on another connection it is resumed, or it has failed. */
    closed: () => answers.clear(),
    /** Call a function whenever an answer begins. @param {() => void} listener */
    watch(listener) {
      begun = listener;
    },
    get pieces() {
      return pieces;
    },
    get running() {
      return answers.size;
    },
    /** How many of those that run have not begun. */
    get queued() {
      let count = 0;
      for (const has of answers.values()) if (!has) count += 1;
      return count;
    },
  };
}
