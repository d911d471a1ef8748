// @ts-check
/**
 * The thread that has the page's WebSockets. What wakes a page costs it more than what it is told then, so pieces of
 * text are passed several at once, with the times when they came; all else is passed at once.
 */

const CHUNK = '{"type":"chunk"';

/** @typedef {[id: number, what: "open" | "send" | "close" | "every", first: any, second?: any]} Order */
/** @typedef {[id: number, what: "open" | "frames" | "close", first: any, second?: any]} News */

/** @type {Map<number, WebSocket>} */
const sockets = new Map();
let every = 0; // milliseconds between two times that text is passed
let passedAt = -Infinity; // when text was passed last
/** The socket whose frames are held, the frames, and when they came. @type {{id: number, texts: string[], times: number[]}} */
let held = { id: 0, texts: [], times: [] };
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {News} news */
const tell = (...news) => postMessage(news);

function pass() {
  clearTimeout(timer);
  timer = undefined;
  const { id, texts, times } = held;
  if (!texts.length) return;
  if (texts[0].startsWith(CHUNK)) passedAt = performance.now();
  held = { id, texts: [], times: [] };
  tell(id, "frames", texts, times);
}

/** @param {number} id @param {string} text */
function received(id, text) {
  if (held.id !== id) pass();
  held.id = id;
  held.texts.push(text);
  held.times.push(performance.timeOrigin + performance.now());
  const left = passedAt + every - performance.now();
  if (left <= 0 || !text.startsWith(CHUNK)) pass();
  else timer ??= setTimeout(pass, left);
}

/** @param {number} id @param {string} url @param {string[]} protocols */
function open(id, url, protocols) {
  const socket = new WebSocket(url, protocols);
  sockets.set(id, socket);
  socket.onopen = () => tell(id, "open", socket.protocol);
  socket.onmessage = ({ data }) => received(id, data);
  socket.onclose = ({ code, reason }) => {
    pass();
    sockets.delete(id);
    tell(id, "close", code, reason);
  };
}

onmessage = (/** @type {MessageEvent<Order>} */ { data: [id, what, first, second] }) => {
  if (what === "open") open(id, first, second);
  else if (what === "send") sockets.get(id)?.send(first);
  else if (what === "close") sockets.get(id)?.close(first, second);
  else every = first;
};
