// @ts-check
/** Frames as the protocol's other codec writes them: msgpack arrays. No I/O. */

/** The number and the fields of each type of frame, as /protocol lists them. @type {Record<string, [number, string]>} */
const FRAMES = {
  hello: [1, "token client"],
  generate: [
    2,
    "id prompt messages system_prompt files tools tool_choice response_format model temperature top_p top_k min_p " +
      "max_tokens stop seed repetition_penalty presence_penalty frequency_penalty logit_bias logprobs top_logprobs " +
      "stream window resumable enable_thinking max_reasoning_tokens raw continue_final_message n " +
      "chat_template_kwargs keep_on_close relayed",
  ],
  cancel: [3, "id"],
  ack: [4, "id seq"],
  resume: [5, "id ticket after follow window"],
  ping: [6, "nonce"],
  ready: [16, "protocol server epoch connection models limits relays replicas"],
  queued: [17, "id position"],
  started: [18, "id seq model prompt_tokens cached_tokens ticket"],
  progress: [19, "id done total first tokens"],
  chunk: [20, "id seq text channel logprobs choice"],
  tool_call: [21, "id seq index call_id name arguments complete error text choice"],
  done: [22, "id seq finish_reason usage timing text reasoning tool_calls logprobs broken_calls choices"],
  error: [23, "id seq code message retryable retry_after"],
  pong: [24, "nonce"],
  loading: [25, "id model done total warming_up"],
};

/** Fields that are written as nil while something follows them, and left out at the end. @type {Record<string, unknown>} */
const DEFAULTS = { stream: true, choice: 0, first: 0 };

/** Return a frame's bytes; null for a type that is not known here. @param {any} frame */
export function packed(frame) {
  const known = FRAMES[frame.type];
  if (!known) return null;
  const [number, names] = known;
  const values = names.split(" ").map((name) => frame[name] ?? DEFAULTS[name] ?? (BOOLEAN.has(name) ? false : null));
  const fields = names.split(" ");
  while (values.length && isDefault(fields[values.length - 1], values[values.length - 1])) values.pop();
  /** @type {number[]} */
  const bytes = [];
  write([number, ...values], bytes);
  return Uint8Array.from(bytes);
}

/** Fields whose default is false and not nil. */
const BOOLEAN = new Set(["resumable", "keep_on_close", "follow", "complete", "retryable", "warming_up", "relays"]);

/** @param {string} name @param {unknown} value */
function isDefault(name, value) {
  return value === null || value === (BOOLEAN.has(name) ? false : DEFAULTS[name]);
}

/** @param {any} value @param {number[]} bytes */
function write(value, bytes) {
  if (value === null || value === undefined) bytes.push(0xc0);
  else if (typeof value === "boolean") bytes.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") writeNumber(value, bytes);
  else if (typeof value === "string") {
    const text = new TextEncoder().encode(value);
    head(text.length, [0xa0, 31], [0xd9, 0xda, 0xdb], bytes);
    for (const byte of text) bytes.push(byte);
  } else if (Array.isArray(value)) {
    head(value.length, [0x90, 15], [0, 0xdc, 0xdd], bytes);
    for (const one of value) write(one, bytes);
  } else {
    const fields = Object.entries(value);
    head(fields.length, [0x80, 15], [0, 0xde, 0xdf], bytes);
    for (const [name, one] of fields) {
      write(name, bytes);
      write(one, bytes);
    }
  }
}

/**
 * Write how long something is.
 * @param {number} size
 * @param {[number, number]} short the first byte for a size of 0, and the largest size that it has room for
 * @param {number[]} long the first bytes for sizes of 8, 16 and 32 bits, 0 where there is none
 * @param {number[]} bytes
 */
function head(size, [first, most], [one, two, four], bytes) {
  if (size <= most) bytes.push(first + size);
  else if (one && size < 0x100) bytes.push(one, size);
  else if (size < 0x10000) bytes.push(two, ...big(size, 2));
  else bytes.push(four, ...big(size, 4));
}

/** @param {number} value @param {number} bytes how many */
const big = (value, bytes) => Array.from({ length: bytes }, (_, index) => Math.floor(value / 2 ** (8 * (bytes - 1 - index))) & 0xff);

/** @param {number} value @param {number[]} bytes */
function writeNumber(value, bytes) {
  if (!Number.isInteger(value)) {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    bytes.push(0xcb, ...new Uint8Array(view.buffer));
  } else if (value >= 0) {
    if (value < 0x80) bytes.push(value);
    else if (value < 0x100) bytes.push(0xcc, value);
    else if (value < 0x10000) bytes.push(0xcd, ...big(value, 2));
    else if (value < 2 ** 32) bytes.push(0xce, ...big(value, 4));
    else bytes.push(0xcf, ...big(value, 8));
  } else if (value >= -32) bytes.push(0x100 + value);
  else if (value >= -0x80) bytes.push(0xd0, 0x100 + value);
  else if (value >= -0x8000) bytes.push(0xd1, ...big(0x10000 + value, 2));
  else bytes.push(0xd2, ...big(2 ** 32 + value, 4));
}
