// @ts-check
/** Reads files as parts of a message, and checks them. A first visit has none. */

import { bytesOf, drawInto, fileView } from "./attachments.js";

/** @typedef {import("../client.js").Part} Part */

/** The image types that both browsers and the gateway can read. */
const IMAGES = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const NEVER_TEXT = /^(image\/(?!svg)|audio\/|video\/|font\/)/;
/** The gateway's limit for a text file; about 250,000 tokens. */
const MAX_TEXT_BYTES = 1024 * 1024;

/**
 * Return a file as an attachment.
 * @param {File} file @param {number} left bytes that the conversation has room for @param {boolean} blind whether the model sees no pictures
 * @returns {Promise<import("./attachments.js").Attachment>} @throws {Error} what is wrong with it
 */
export async function readFile(file, left, blind) {
  const image = IMAGES.includes(file.type);
  if (image && blind) throw new Error(`“${file.name}” is a picture, and this model reads text only.`);
  const most = image ? (left * 3) / 4 : left; // base64 makes four bytes out of three
  if (file.size > most) throw tooBig(file, most, "this conversation has room for");
  const { part, view } = await read(file);
  return { name: file.name, part, bytes: bytesOf(part), view };
}

/** Return a file as part of a message, and an element that shows it. @param {File} file @throws {Error} */
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
 * Return a small canvas with the image. An `img` element would need a URL that the page's security
 * policy allows; a canvas needs none.
 * @param {File} file
 */
async function thumbnailOf(file) {
  const canvas = document.createElement("canvas");
  await drawInto(canvas, file).catch(() => {
    throw new Error(`“${file.name}” can't be read as an image.`);
  });
  canvas.role = "img";
  canvas.ariaLabel = canvas.title = file.name;
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
  if (file.size > MAX_TEXT_BYTES) throw tooBig(file, MAX_TEXT_BYTES, "a text file may have");
  const bytes = await file.arrayBuffer().catch(() => {
    throw new Error(`“${file.name}” can't be read.`); // it is a folder, or was deleted
  });
  const text = decoded(bytes);
  if (text === null) throw unknownKind(file);
  const view = fileView(file.name);
  view.title = `${file.name}, ${sizeOf(file.size)}`;
  // The same layout as that of the gateway for `files`.
  const part = { type: "text", text: `${file.name}:\n${text.trimEnd()}\n\n` };
  return { part: /** @type {Part} */ (part), view };
}

/** Return bytes as text, null if they are not UTF-8 text. @param {ArrayBuffer} bytes */
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
