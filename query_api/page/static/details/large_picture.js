// The picture of a content, as large as it is: its link if the page may load it, else the thumbnail.

import { nameOf } from "../ui/words.js";
import { build } from "../ui/elements.js";
import { pictureOf, sharpPictureOf } from "../results/thumbnails.js";

export function buildPicture(hit) {
  const image = build("img", { alt: nameOf(hit), referrerpolicy: "no-referrer" });
  const picture = build("div", { class: "picture" }, image);
  showLargest(image, hit);
  return picture;
}

async function showLargest(image, hit) {
  const thumbnail = await pictureOf(hit);
  const large = sharpPictureOf(hit);
  image.addEventListener("error", () => {
    if (thumbnail !== null && image.src !== new URL(thumbnail, location.href).href) image.src = thumbnail;
    else image.parentElement?.classList.add("is-missing");
  });
  if (large ?? thumbnail) image.src = large ?? thumbnail;
  else image.parentElement?.classList.add("is-missing");
}
