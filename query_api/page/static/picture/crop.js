// A dialog to choose the part of a picture that is searched with.

import { build, find } from "../ui/elements.js";

const LEAST = 0.08; // of a side; a smaller part shows nothing
const STEP = 0.02; // an arrow key
const WHOLE = { left: 0, top: 0, width: 1, height: 1 };
const CORNERS = ["nw", "ne", "sw", "se"];

/** Open the dialog for a picture that has its original. `cut(part)` is called with the chosen part, null for the whole. */
export function openCrop(picture, cut) {
  const dialog = find("#crop");
  const address = URL.createObjectURL(picture.original);
  const box = new CropBox(picture.part ?? { left: 0.15, top: 0.15, width: 0.7, height: 0.7 });
  const finish = (part) => { dialog.close(); cut(part); };
  const button = (words, click, name) => build("button", { type: "button", class: name, text: words, on: { click } });
  dialog.replaceChildren(
    build("h2", { id: "crop-title", text: "Search with a part" }),
    build("div", { class: "crop-frame" }, build("img", { src: address, alt: "", draggable: "false" }), box.element),
    build(
      "div",
      { class: "actions" },
      button("Cancel", () => dialog.close(), "text-button"),
      button("Whole picture", () => finish(null), "text-button"),
      button("Search this part", () => finish(isWhole(box.part) ? null : box.part), "button"),
    ),
  );
  dialog.addEventListener("close", () => URL.revokeObjectURL(address), { once: true });
  dialog.showModal();
  box.element.focus();
}

/** The box over the picture: dragged by a pointer; moved by arrow keys, and sized by Shift and arrow keys. */
class CropBox {
  constructor(part) {
    this.element = build(
      "div",
      { class: "crop-box", tabindex: "0", role: "group", "aria-label": "The part to search with. Arrow keys move it; Shift and arrow keys change its size." },
      ...CORNERS.map((corner) => build("i", { class: corner, "data-corner": corner })),
    );
    this.element.addEventListener("pointerdown", (event) => this.#drag(event));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.#set(part);
  }

  #set({ left, top, width, height }) {
    const size = [Math.min(1, Math.max(LEAST, width)), Math.min(1, Math.max(LEAST, height))];
    const [x, y] = [Math.min(1 - size[0], Math.max(0, left)), Math.min(1 - size[1], Math.max(0, top))];
    this.part = { left: x, top: y, width: size[0], height: size[1] };
    for (const [name, share] of Object.entries(this.part)) this.element.style[name] = `${100 * share}%`;
  }

  #drag(event) {
    event.preventDefault();
    this.element.focus();
    this.element.setPointerCapture(event.pointerId);
    const frame = this.element.parentElement.getBoundingClientRect();
    const before = this.part;
    const corner = event.target.dataset.corner ?? null;
    const move = (moved) => {
      const [dx, dy] = [(moved.clientX - event.clientX) / frame.width, (moved.clientY - event.clientY) / frame.height];
      this.#set(corner === null ? { ...before, left: before.left + dx, top: before.top + dy } : resized(before, corner, dx, dy));
    };
    this.element.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) {
      this.element.addEventListener(name, () => this.element.removeEventListener("pointermove", move), { once: true });
    }
  }

  #key(event) {
    const [dx, dy] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [0, 0];
    if (dx === 0 && dy === 0) return;
    event.preventDefault();
    const { left, top, width, height } = this.part;
    this.#set(event.shiftKey ? { left, top, width: width + dx, height: height + dy } : { left: left + dx, top: top + dy, width, height });
  }
}

/** Return the part after one of its corners was dragged; the opposite corner stays. */
function resized({ left, top, width, height }, corner, dx, dy) {
  const isWest = corner.endsWith("w");
  const isNorth = corner.startsWith("n");
  const [right, bottom] = [left + width, top + height];
  const x = isWest ? Math.min(right - LEAST, Math.max(0, left + dx)) : left;
  const y = isNorth ? Math.min(bottom - LEAST, Math.max(0, top + dy)) : top;
  return {
    left: x, top: y,
    width: isWest ? right - x : Math.min(1 - left, width + dx),
    height: isNorth ? bottom - y : Math.min(1 - top, height + dy),
  };
}

const isWhole = (part) => Object.entries(WHOLE).every(([name, share]) => Math.abs(part[name] - share) < 0.01);
