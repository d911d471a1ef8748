// @ts-check
/** Files that go with a message: read, checked, and shown until they are sent and after. */

import { copyOf, find } from "./dom.js";

/** @typedef {import("./client.js").Part} Part */
/** @typedef {{name: string, part: Part, bytes: number, view: HTMLElement}} Attachment */

/** What both a page can show and a gateway can read. */
const IMAGES = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const NEVER_TEXT = /^(image\/(?!svg)|audio\/|video\/|font\/)/;
/** As large as the gateway takes text in files; about 250,000 tokens. */
const MAX_TEXT_BYTES = 1024 * 1024;
const MAX_FILES = 16; // with one message: more is a folder, dropped by mistake
const THUMBNAIL = 480; // pixels, on a screen that has two of them for each of the page's

/**
 * A message's content: parts before the text, or the text alone. They stay in the message, and so
 * in the conversation: what belongs to one turn is still there in the next.
 * @param {Attachment[]} attachments
 * @param {string} text
 */
export function contentOf(attachments, text) {
  if (!attachments.length) return text;
  const parts = attachments.map(({ part }) => part);
  // Images first: that is how models have learned it.
  const ordered = [...parts.filter(isImage), ...parts.filter((part) => !isImage(part))];
  /** @type {Part} */
  const said = { type: "text", text };
  return text ? [...ordered, said] : ordered;
}

/** @param {Part} part */
const isImage = (part) => part.type !== "text";

/** How many bytes something is on its way to the gateway. @param {unknown} value */
export const bytesOf = (value) => new TextEncoder().encode(JSON.stringify(value)).length;

/** A file's part of a message, with what shows it. Throws an Error that says what is wrong. @param {File} file */
async function read(file) {
  if (IMAGES.includes(file.type)) return readImage(file);
  if (NEVER_TEXT.test(file.type)) throw unknownKind(file);
  return readText(file);
}

/** @param {File} file */
async function readImage(file) {
  const view = await thumbnailOf(file);
  const data = (await dataUrlOf(file)).split(",")[1];
  return { part: /** @type {Part} */ ({ type: "image", data }), view };
}

/**
 * The image as it is shown, small. A canvas needs no address, and so none that the page's security
 * policy would have to allow.
 * @param {File} file
 */
async function thumbnailOf(file) {
  const image = await createImageBitmap(file).catch(() => {
    throw new Error(`“${file.name}” can't be read as an image.`);
  });
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.role = "img";
  canvas.ariaLabel = canvas.title = file.name;
  image.close();
  return canvas;
}

/** @param {File} file @returns {Promise<string>} */
function dataUrlOf(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error(`“${file.name}” can't be read.`));
    reader.readAsDataURL(file);
  });
}

/** @param {File} file */
async function readText(file) {
  if (file.size > MAX_TEXT_BYTES) throw tooBig(file, MAX_TEXT_BYTES, "a text may have");
  const bytes = await file.arrayBuffer().catch(() => {
    throw new Error(`“${file.name}” can't be read.`); // a folder, or it is gone
  });
  const text = decoded(bytes);
  if (text === null) throw unknownKind(file);
  const view = document.createElement("span");
  view.className = "file";
  view.textContent = file.name;
  view.title = `${file.name}, ${sizeOf(file.size)}`;
  // As the gateway puts a file's text before a prompt.
  const part = { type: "text", text: `${file.name}:\n${text.trimEnd()}\n\n` };
  return { part: /** @type {Part} */ (part), view };
}

/** What bytes say as text, null if they are none. @param {ArrayBuffer} bytes */
function decoded(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** @param {File} file */
function unknownKind(file) {
  return new Error(`“${file.name}” is neither a supported image nor UTF-8 text.`);
}

/** @param {File} file @param {number} most @param {string} what */
function tooBig(file, most, what) {
  return new Error(`“${file.name}” is too large: it has ${sizeOf(file.size)}, and ${what} ${sizeOf(most)}.`);
}

/** @param {number} bytes */
function sizeOf(bytes) {
  if (bytes < 1024) return `${Math.max(0, Math.floor(bytes))} bytes`;
  const [size, unit] = bytes < 1024 ** 2 ? [bytes / 1024, "kB"] : [bytes / 1024 ** 2, "MB"];
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${unit}`;
}

/**
 * The files that wait in a form for the message that they go with.
 * @param {HTMLElement} pane which takes files that are dropped or pasted anywhere in it
 * @param {HTMLFormElement} form
 * @param {() => number} room in bytes, for what may come to the conversation
 */
export function createAttachments(pane, form, room) {
  const list = find(".attached", form);
  const wrong = find(".wrong", form);
  const input = find("input[type=file]", form);
  /** @type {Attachment[]} */
  let waiting = [];
  let reading = Promise.resolve(); // one after the other, so that they keep their order

  find(".attach", form).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // the same file may be chosen again
  });
  pane.addEventListener("paste", paste);
  pane.addEventListener("dragover", (event) => drag(event, hasFiles(event)));
  pane.addEventListener("dragleave", (event) => {
    if (!pane.contains(/** @type {Node} */ (event.relatedTarget))) drag(event, false);
  });
  pane.addEventListener("drop", (event) => {
    drag(event, false);
    if (hasFiles(event)) add(/** @type {DataTransfer} */ (event.dataTransfer).files);
  });

  /** @param {DragEvent} event */
  function hasFiles({ dataTransfer }) {
    return Boolean(dataTransfer?.types.includes("Files"));
  }

  /** @param {DragEvent} event @param {boolean} over */
  function drag(event, over) {
    pane.classList.toggle("dropping", over);
    if (hasFiles(event)) event.preventDefault(); // or the browser would leave the page for the file
  }

  /** Text that brings a picture of itself along is pasted as text. @param {ClipboardEvent} event */
  function paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!files.length || (text && !files.some((file) => text.includes(file.name)))) return;
    event.preventDefault();
    add(files);
  }

  /** @param {Iterable<File>} files */
  function add(files) {
    wrong.textContent = "";
    for (const file of files) reading = reading.then(() => take(file)).catch(say);
    find("textarea", form).focus();
  }

  /** @param {File} file */
  async function take(file) {
    if (waiting.length >= MAX_FILES) throw new Error(`At most ${MAX_FILES} files go with one message.`);
    const left = room() - waiting.reduce((sum, { bytes }) => sum + bytes, 0);
    const image = IMAGES.includes(file.type);
    const most = image ? (left * 3) / 4 : left; // base64 makes four bytes of three
    if (file.size > most) throw tooBig(file, most, "this conversation has room for");
    const { part, view } = await read(file);
    const attachment = { name: file.name, part, bytes: bytesOf(part), view };
    waiting.push(attachment);
    showOne(attachment);
  }

  /** @param {Attachment} attachment */
  function showOne(attachment) {
    const chip = copyOf("#chip");
    const button = find("button", chip);
    button.ariaLabel = `Remove ${attachment.name}`;
    button.addEventListener("click", () => {
      waiting = waiting.filter((other) => other !== attachment);
      chip.remove();
      wrong.textContent = "";
      list.hidden = !waiting.length;
      find("textarea", form).focus();
    });
    chip.prepend(attachment.view);
    list.append(chip);
    list.hidden = false;
  }

  /** @param {Error} error */
  function say(error) {
    wrong.textContent = error.message;
  }

  return {
    say,
    /** Resolves when all files are read that have been given so far. */
    read: () => reading,
    any: () => waiting.length > 0,
    waiting: () => waiting,
    /** They are sent: the form is empty again. */
    clear() {
      waiting = [];
      wrong.textContent = "";
      list.replaceChildren();
      list.hidden = true;
    },
  };
}
