// A picture to search with: dropped, pasted or chosen. It is made small, because each change of the search sends it.

import { find } from "./elements.js";

const MAX_SIDE = 768;
const MAX_BYTES = 512 * 1024;
const TYPES = ["image/jpeg", "image/png", "image/webp", "image/gif"];

/** Call `take(picture)` with `{base64, address, name}` when a person gives a picture, `refuse(reason)` if it cannot be read. */
export function watchForPictures({ take, refuse }) {
  const accept = async (file) => {
    if (!file) return;
    try {
      take(await readPicture(file));
    } catch {
      refuse("Can't read this file. Use a JPEG, PNG, WebP or GIF.");
    }
  };
  const input = find("#picture-file");
  find("#choose-picture").addEventListener("click", () => input.click());
  input.addEventListener("change", () => { accept(input.files[0]); input.value = ""; });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file && !find("dialog[open]")) { event.preventDefault(); accept(file); }
  });
  watchForDrops(accept);
}

function watchForDrops(accept) {
  const veil = find("#drop");
  let depth = 0; // browsers send enter and leave for every element that the pointer crosses
  const hasFile = (event) => event.dataTransfer?.types.includes("Files") && !find("dialog[open]");
  const lower = () => { depth = 0; veil.hidden = true; };
  document.addEventListener("dragenter", (event) => { if (hasFile(event)) { depth += 1; veil.hidden = false; } });
  document.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) lower(); });
  document.addEventListener("dragover", (event) => { if (hasFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    lower();
    if (!hasFile(event)) return;
    event.preventDefault();
    accept(event.dataTransfer.files[0]);
  });
}

async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const isAsItIs = file.size <= MAX_BYTES && TYPES.includes(file.type);
  const blob = isAsItIs ? file : await shrink(bitmap);
  bitmap.close();
  return { base64: await toBase64(blob), address: URL.createObjectURL(blob), name: file.name };
}

async function shrink(bitmap) {
  const ratio = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * ratio));
  canvas.height = Math.max(1, Math.round(bitmap.height * ratio));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // the service, too, puts transparent pictures on white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function toBase64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let from = 0; from < bytes.length; from += 0x8000) text += String.fromCharCode(...bytes.subarray(from, from + 0x8000));
  return btoa(text);
}
