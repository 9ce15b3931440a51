// Pictures of hits: the thumbnail, small or as it is kept; else the content's link, if its host is allowed; else none.

import { call, hasKey } from "../search/service.js";
import { find } from "../ui/elements.js";

const MAX_KEPT = 600;
const fetched = new Map(); // thumbnail address → promise of an object address; used only with an API key

/** Return the address that a large `img` may show for a hit, a promise of it, or null. */
export const pictureOf = (hit) => addressFor(hit, keptThumbnailOf(hit));

/**
 * Return the address that a tile may show, in the same way. With an API key there is one address for every
 * screen, so it leads to the size that this screen needs.
 */
const smallPictureOf = (hit) => addressFor(hit, hasKey() && devicePixelRatio > 1 ? keptThumbnailOf(hit) : smallThumbnailOf(hit));

function addressFor(hit, thumbnail) {
  if (thumbnail !== null) return hasKey() ? fetchPicture(thumbnail) : thumbnail;
  return sharpPictureOf(hit);
}

const keptThumbnailOf = (hit) => (typeof hit.thumbnail_url === "string" ? hit.thumbnail_url : null);

function smallThumbnailOf(hit) {
  const address = keptThumbnailOf(hit);
  return address === null ? null : `${address}${address.includes("?") ? "&" : "?"}size=small`;
}

/** Set an image's source. With an API key the picture is fetched first, because `img` cannot send a key. */
export async function showPicture(image, hit) {
  const address = await smallPictureOf(hit);
  if (address === null) return false;
  if (image.getAttribute("src") !== address) image.src = address;
  return true;
}

/**
 * Show a tile's picture. A screen with more pixels loads the content's own picture, if the page may, else the thumbnail
 * as it is kept. `missing()` is called if there is no picture at all: a link that does not answer with one is replaced by
 * the thumbnail.
 */
export async function showTile(image, hit, missing) {
  const thumbnail = await smallPictureOf(hit);
  if (thumbnail === null) return missing();
  const sharp = sharpPictureOf(hit) ?? (hasKey() ? null : keptThumbnailOf(hit));
  image.addEventListener("error", () => {
    if (image.srcset === "") missing();
    else image.removeAttribute("srcset");
  });
  if (sharp !== null && sharp !== thumbnail) image.srcset = `${thumbnail} 1x, ${sharp} 2x`;
  image.src = thumbnail; // after `srcset`, so that one of both is loaded
  image.hidden = false;
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
