// Pictures of hits: the thumbnail; else the content's link, if its host is allowed; else none.

import { call, hasKey } from "../search/service.js";
import { find } from "../ui/elements.js";

const MAX_KEPT = 600;
const fetched = new Map(); // thumbnail address → promise of an object address; used only with an API key

/** Return the address that `img` may show for a hit, a promise of it, or null. */
export function pictureOf(hit) {
  if (typeof hit.thumbnail_url === "string") return hasKey() ? fetchPicture(hit.thumbnail_url) : hit.thumbnail_url;
  return sharpPictureOf(hit);
}

/** Set an image's source. With an API key the picture is fetched first, because `img` cannot send a key. */
export async function showPicture(image, hit) {
  const address = await pictureOf(hit);
  if (address === null) return false;
  if (image.getAttribute("src") !== address) image.src = address;
  return true;
}

/**
 * Let a screen with more pixels load the content's own picture, if the page may. `missing()` is called if there is
 * no picture at all: a link that does not answer with one is replaced by the thumbnail.
 */
export function sharpenPicture(image, hit, missing) {
  const sharp = sharpPictureOf(hit);
  const thumbnail = image.getAttribute("src");
  image.addEventListener("error", () => {
    if (image.srcset === "") missing();
    else image.removeAttribute("srcset");
  });
  if (sharp !== null && thumbnail !== null && sharp !== thumbnail) image.srcset = `${thumbnail} 1x, ${sharp} 2x`;
}

/** Return the content's own picture, which has more pixels than the thumbnail, if the page may load it. */
export const sharpPictureOf = (hit) => (hit.modality === "image" && isShowable(hit.link) ? new URL(hit.link).href : null);

export function webLink(link) {
  try {
    return ["http:", "https:"].includes(new URL(link).protocol) ? link : null;
  } catch {
    return null;
  }
}

function isShowable(link) {
  if (webLink(link) === null) return false;
  const { host, hostname } = new URL(link);
  const allowed = find('meta[name="cliptide-link-hosts"]').content.split(" ").filter(Boolean);
  return allowed.some((name) =>
    name.startsWith("*.") ? hostname.endsWith(name.slice(1)) : [host, hostname].includes(name));
}

function fetchPicture(address) {
  if (!fetched.has(address)) {
    fetched.set(address, call(address).then(async (response) => URL.createObjectURL(await response.blob())).catch(() => null));
    forgetOldest();
  }
  return fetched.get(address);
}

function forgetOldest() {
  if (fetched.size <= MAX_KEPT) return;
  const [address, object] = fetched.entries().next().value;
  fetched.delete(address);
  object.then((url) => url && URL.revokeObjectURL(url));
}
