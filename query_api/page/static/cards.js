// One hit as an element: a picture as a tile, a text as a card.

import { ago, build, icon } from "./elements.js";
import { showPicture } from "./thumbnails.js";

const MORE = "M12 5v14M5 12h14";
const LESS = "M5 12h14";

const shown = new WeakMap(); // element → its hit in the newest answer

/** Build the element of a hit. `actions` are `open(hit)` and `example(hit, side)`. */
export function buildHit(hit, actions) {
  const isPicture = hit.modality === "image";
  const body = isPicture ? buildTile(hit) : build("div", { class: "words", text: hit.text ?? hit.content_id });
  const open = build(
    "button",
    { type: "button", class: "open", "aria-label": nameOf(hit), on: { click: () => actions.open(shown.get(item)) } },
    body,
    build("div", { class: "bar", "aria-hidden": "true" }, build("i")),
    build("div", { class: "caption" }, build("span", { text: captionOf(hit) }), build("span", { class: "score" })),
  );
  const item = build("li", { class: isPicture ? "hit" : "hit card" }, open, buildLike(hit, (side) => actions.example(shown.get(item), side)));
  item.dataset.id = hit.content_id;
  return item;
}

/** Update what changes from answer to answer: the score, and whether the hit is in the basket. */
export function updateHit(item, hit, { best, side }) {
  shown.set(item, hit);
  const share = hit.score === undefined ? 0 : Math.max(0, hit.score) / Math.max(best, 1e-6);
  item.querySelector(".bar").hidden = hit.score === undefined;
  item.querySelector(".bar i").style.width = `${Math.round(100 * Math.min(1, share))}%`;
  item.querySelector(".score").textContent = hit.score === undefined ? ago(hit.occurred_at) : hit.score.toFixed(2);
  item.querySelector(".more").setAttribute("aria-pressed", String(side === "more"));
  item.querySelector(".less").setAttribute("aria-pressed", String(side === "less"));
}

export const nameOf = (hit) => (hit.modality === "text" && hit.text ? hit.text.slice(0, 120) : hit.content_id);

const captionOf = (hit) => hit.owner_id ?? hit.source ?? "";

function buildTile(hit) {
  const image = build("img", { alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer", hidden: true });
  const without = build("span", { class: "without", text: hit.content_id, hidden: true });
  const fallBack = () => { image.hidden = true; without.hidden = false; };
  image.addEventListener("error", fallBack);
  showPicture(image, hit).then((isShown) => { if (isShown) image.hidden = false; else fallBack(); });
  return build("div", { class: "tile" }, image, without);
}

function buildLike(hit, choose) {
  const button = (side, label, path) =>
    build(
      "button",
      { type: "button", class: side, title: label, "aria-label": `${label}: ${nameOf(hit)}`, "aria-pressed": "false",
        on: { click: () => choose(side) } },
      icon(path),
    );
  return build("div", { class: "like" }, button("more", "More like this", MORE), button("less", "Less like this", LESS));
}
