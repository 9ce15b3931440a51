// A picture to search with: dropped, pasted or chosen.

import { find } from "../ui/elements.js";
import { readPicture } from "./prepare.js";

const REFUSED = "Can't read this file. Use a JPEG, PNG, WebP, GIF or AVIF; or a TIFF, BMP or HEIC of up to 20 MB.";

/** Call `take(picture)` with `{base64, address, key, original}` when a person gives a picture, `refuse(reason)` if it cannot be read. */
export function watchForPictures({ take, refuse }) {
  const accept = async (file) => {
    if (!file) return;
    try {
      take(await readPicture(file));
    } catch {
      refuse(REFUSED);
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
