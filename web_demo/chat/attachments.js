// @ts-check
/** The files attached to a message, and how they are shown. */

import { copyOf, find } from "../shell/dom.js";

/** @typedef {import("../client.js").Part} Part */
/** @typedef {{name: string, part: Part, bytes: number, view: HTMLElement}} Attachment */

const MAX_FILES = 16; // per message; more are probably a folder that was dropped by mistake
const THUMBNAIL = 480; // device pixels of the longer side, sharp on a display with a ratio of 2

/**
 * Return a message's content: its attachments before its text, or the text alone. Attachments are
 * part of the message, so every later request of the conversation contains them.
 * @param {Attachment[]} attachments
 * @param {string} text
 */
export function contentOf(attachments, text) {
  if (!attachments.length) return text;
  const parts = attachments.map(({ part }) => part);
  // Images come first, as in the data that vision models are trained on.
  const ordered = [...parts.filter(isImage), ...parts.filter((part) => !isImage(part))];
  /** @type {Part} */
  const said = { type: "text", text };
  return text ? [...ordered, said] : ordered;
}

/** @param {Part} part */
const isImage = (part) => part.type !== "text";

/** Return what shows the attachments of a message that was kept. @param {string | Part[]} content */
export const viewsOf = (content) => attachedTo(content).map(({ view }) => view);

/** Return the attachments of a message that was kept. @param {string | Part[]} content */
export function attachedTo(content) {
  if (typeof content === "string") return [];
  return content.flatMap(/** @returns {Omit<Attachment, "bytes">[]} */ (part, index) => {
    if (part.type === "image") return [{ part, name: "the image", view: imageAgain(part.data) }];
    const name = /^(.{1,200}):\n/.exec(part.type === "text" ? part.text : "")?.[1];
    const isFile = part.type === "text" && name && (index < content.length - 1 || part.text.endsWith("\n\n"));
    return isFile ? [{ part, name, view: fileView(name) }] : [];
  });
}

/** @param {string} data base64 text */
function imageAgain(data) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 0;
  canvas.role = "img";
  canvas.ariaLabel = "Image";
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  drawInto(canvas, new Blob([bytes])).catch(() => canvas.replaceWith(fileView("image")));
  return canvas;
}

/** @param {string} name */
export function fileView(name) {
  const view = document.createElement("span");
  view.className = "file";
  view.textContent = view.title = name;
  return view;
}

/** Return the size of a value as JSON, in bytes. @param {unknown} value */
export const bytesOf = (value) => new TextEncoder().encode(JSON.stringify(value)).length;

/** Draw an image into a canvas, as small as it is shown. @param {HTMLCanvasElement} canvas @param {Blob} file */
export async function drawInto(canvas, file) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
}

/**
 * Collect the files for the next message.
 * @param {HTMLElement} pane the conversation; files may be dropped or pasted anywhere in it
 * @param {HTMLFormElement} form
 * @param {() => number} room returns by how many bytes the conversation may grow
 * @param {() => boolean} blind returns whether the model is known to see no pictures
 */
export function createAttachments(pane, form, room, blind) {
  const list = find(".attached", form);
  const wrong = find(".wrong", form);
  const input = find("input[type=file]", form);
  /** @type {Attachment[]} */
  let waiting = [];
  let reading = Promise.resolve(); // files are read one after the other, to keep their order

  find(".attach", form).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // so that the same file can be chosen again
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
    if (hasFiles(event)) event.preventDefault(); // else the browser would open the file instead of the page
  }

  /** Attach pasted files, unless the clipboard also has text of its own. @param {ClipboardEvent} event */
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
    for (const file of files) reading = reading.then(() => attach(file)).catch(say);
    find("textarea", form).focus();
  }

  /** @param {File} file */
  async function attach(file) {
    if (waiting.length >= MAX_FILES) throw new Error(`At most ${MAX_FILES} files go with one message.`);
    const { readFile } = await import("./reading.js").catch(() => {
      throw new Error("Files can't be read now. Try again once the gateway is there.");
    });
    const left = room() - waiting.reduce((sum, { bytes }) => sum + bytes, 0);
    put(await readFile(file, left, blind()));
  }

  /** @param {Attachment} attachment */
  function put(attachment) {
    waiting.push(attachment);
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
    /** Resolves when all files given so far are read. */
    read: () => reading,
    put,
    waiting: () => waiting,
    /** Remove all files, because they were sent. */
    clear() {
      waiting = [];
      wrong.textContent = "";
      list.replaceChildren();
      list.hidden = true;
    },
  };
}
