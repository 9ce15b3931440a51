// Make a picture ready to be sent. It is made small, because each change of the search sends it.

import { keepPicture } from "../question/kept_pictures.js";

const MAX_SIDE = 768;
const MAX_BYTES = 512 * 1024;
const MAX_UNREAD_BYTES = 20 * 1024 * 1024; // of a format that only the service can read
const TYPES = ["image/jpeg", "image/png", "image/webp", "image/gif"];
const ONLY_SERVICE_READS = /\.(tiff?|bmp|ico|jp2|j2k|heic|heif|avif)$/i;

/**
 * Read a file into `{base64, address, key, original}`. `original` is the file, from which a part may be cut.
 * A format that the browser cannot read is sent as it is, if the service may know it; else this rejects.
 */
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (bitmap === null) {
    if (!ONLY_SERVICE_READS.test(file.name) || file.size > MAX_UNREAD_BYTES) throw new Error("not a picture");
    return pictureOf(file, null);
  }
  const isAsItIs = file.size <= MAX_BYTES && TYPES.includes(file.type);
  const picture = await pictureOf(isAsItIs ? file : await draw(bitmap, [0, 0, bitmap.width, bitmap.height]), file);
  bitmap.close();
  return picture;
}

/** Cut a part out of a picture. `part` has the shares `{left, top, width, height}` of the whole. */
export async function cutPicture(picture, part) {
  const bitmap = await createImageBitmap(picture.original);
  const { width, height } = bitmap;
  const blob = await draw(bitmap, [part.left * width, part.top * height, Math.max(1, part.width * width), Math.max(1, part.height * height)]);
  bitmap.close();
  return { ...(await pictureOf(blob, picture.original)), part };
}

async function pictureOf(blob, original) {
  const base64 = await toBase64(blob);
  return { base64, address: URL.createObjectURL(blob), key: keepPicture(base64), original };
}

function draw(bitmap, [left, top, width, height]) {
  const ratio = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // the service, too, puts transparent pictures on white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function toBase64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let from = 0; from < bytes.length; from += 0x8000) text += String.fromCharCode(...bytes.subarray(from, from + 0x8000));
  return btoa(text);
}
