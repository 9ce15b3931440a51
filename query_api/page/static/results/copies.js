// Near duplicates: pictures that look the same are shown once, with a count of the others.

const SIDE = 8; // pixels of a signature
const MAX_MEAN = 4; // of 255: how far the signatures of two copies may differ on average
const MAX_ONE = 28; // and in one value

const signatures = new WeakMap(); // image element → Uint8ClampedArray, null if it cannot be read
const opened = new WeakSet(); // items whose copies a person has asked for

/** Collapse the copies among the pictures of a section, now and whenever further pictures are loaded. */
export function collapseCopies(section) {
  for (const image of section.querySelectorAll(".tile img")) {
    if (image.dataset.isWatched) continue;
    image.dataset.isWatched = "yes";
    image.addEventListener("load", () => collapse(section));
  }
  collapse(section);
}

/** Group each list: a copy is hidden behind the first picture that it resembles. */
function collapse(section) {
  for (const list of section.querySelectorAll("ol")) {
    const firsts = []; // {item, signature, copies}
    for (const item of list.children) {
      const signature = signatureOf(item.querySelector("img"));
      const first = signature && firsts.find((other) => areAlike(other.signature, signature));
      if (first) first.copies.push(item);
      else if (signature) firsts.push({ item, signature, copies: [] });
    }
    for (const { item, copies } of firsts) show(item, copies);
  }
}

function show(item, copies) {
  const isOpen = opened.has(item);
  item.hidden = false;
  for (const copy of copies) copy.hidden = !isOpen && !copy.contains(document.activeElement); // it would lose the focus
  const badge = item.querySelector(".copies");
  badge.hidden = copies.length === 0 || isOpen;
  badge.textContent = `+${copies.length}`;
  badge.setAttribute("aria-label", `Show ${copies.length} more that look the same`);
  badge.onclick = () => {
    opened.add(item);
    show(item, copies);
  };
}

/** Return a picture's signature: a few pixels of it; null if it is not loaded, or from another host. */
function signatureOf(image) {
  if (!image.complete || image.naturalWidth === 0) return null;
  if (!signatures.has(image)) signatures.set(image, readPixels(image));
  return signatures.get(image);
}

function readPixels(image) {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, SIDE, SIDE);
  try {
    return context.getImageData(0, 0, SIDE, SIDE).data;
  } catch {
    return null; // the browser does not let a page read pictures of other hosts
  }
}

function areAlike(one, other) {
  let sum = 0;
  for (let at = 0; at < one.length; at += 1) {
    const difference = Math.abs(one[at] - other[at]);
    if (difference > MAX_ONE) return false;
    sum += difference;
  }
  return sum <= MAX_MEAN * one.length;
}
