// One hit as an element: a picture as a tile, a text as a card.

import { ago, nameOf } from "../ui/words.js";
import { build, icon } from "../ui/elements.js";
import { onLongPress } from "../ui/press.js";
import { showTile } from "./thumbnails.js";

const MORE = "M12 5v14M5 12h14";
const LESS = "M5 12h14";

const shown = new WeakMap(); // element → its hit in the newest answer

export const hitOf = (item) => shown.get(item);

/** Build the element of a hit. `actions` are `open(hit)`, `example(hit, side)` and `menu(hit)`. */
export function buildHit(hit, actions) {
  const isPicture = hit.modality === "image";
  const body = isPicture ? buildTile(hit) : build("div", { class: "words", text: hit.text ?? hit.content_id });
  const open = build(
    "button",
    { type: "button", class: "open", tabindex: "-1", "aria-keyshortcuts": "+ -", on: { click: () => actions.open(shown.get(item)) } },
    body,
    build("div", { class: "bar", "aria-hidden": "true" }, build("i")),
    build("div", { class: "caption" }, build("span", { class: "title" }), build("span", { class: "level" })),
  );
  const choose = (side) => actions.example(shown.get(item), side);
  const item = build("li", { class: isPicture ? "hit" : "hit card" }, open, buildLike(hit, choose), isPicture ? buildCopies() : null);
  item.dataset.id = hit.content_id;
  onLongPress(open, () => actions.menu(shown.get(item)));
  item.addEventListener("keydown", (event) => {
    const side = { "+": "more", "-": "less" }[event.key];
    if (side !== undefined) choose(side);
  });
  return item;
}

/** Update what changes from answer to answer: how well the hit matches, and whether it is in the basket. */
export function updateHit(item, hit, { level, share, side }) {
  shown.set(item, hit);
  const isRated = level !== null && level !== "none";
  const words = hit.score === undefined ? ago(hit.occurred_at) : isRated ? level : "";
  item.querySelector(".bar").hidden = level === null;
  item.querySelector(".bar").classList.toggle("is-empty", !isRated);
  item.querySelector(".bar i").style.width = isRated ? `${Math.round(100 * share)}%` : "0";
  item.dataset.level = level ?? "";
  item.querySelector(".level").textContent = words;
  item.querySelector(".title").textContent = captionOf(hit);
  item.querySelector(".open").setAttribute("aria-label", isRated ? `${nameOf(hit)}, ${level} match` : nameOf(hit));
  item.querySelector(".more").setAttribute("aria-pressed", String(side === "more"));
  item.querySelector(".less").setAttribute("aria-pressed", String(side === "less"));
}

/** A text is its own title, so its owner stands below it. */
const captionOf = (hit) => (hit.modality === "text" ? hit.owner_id ?? hit.source ?? "" : nameOf(hit));

function buildTile(hit) {
  const image = build("img", { alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer", hidden: true });
  const without = build("span", { class: "without", text: nameOf(hit), hidden: true });
  const fallBack = () => { image.hidden = true; without.hidden = false; };
  showTile(image, hit, fallBack);
  return build("div", { class: "tile" }, image, without);
}

const buildCopies = () => build("button", { type: "button", class: "copies", tabindex: "-1", "aria-label": "Show more that look the same", hidden: true });

function buildLike(hit, choose) {
  const button = (side, label, path) =>
    build(
      "button",
      { type: "button", class: side, title: label, tabindex: "-1", "aria-label": `${label}: ${nameOf(hit)}`, "aria-pressed": "false",
        on: { click: () => choose(side) } },
      icon(path),
    );
  return build("div", { class: "like" }, button("more", "More like this", MORE), button("less", "Less like this", LESS));
}
