// The basket: the examples that a person has picked. The search looks for more like some, and less like others.

import { build, find } from "../ui/elements.js";
import { labelOf } from "../ui/words.js";
import { showPicture } from "../results/thumbnails.js";

/** Show the basket of a question. `drop(hit, side)` removes one example, `empty()` removes all. */
export function showBasket({ more, less }, { drop, empty }) {
  const basket = find("#basket");
  basket.hidden = more.length + less.length === 0;
  const groups = [["more", "More like", more], ["less", "Less like", less]]
    .filter(([, , hits]) => hits.length > 0)
    .map(([side, title, hits]) => buildGroup(side, title, hits, drop));
  const clear = build("button", { type: "button", class: "text-button", text: "Clear", on: { click: empty } });
  basket.replaceChildren(...groups, clear);
}

function buildGroup(side, title, hits, drop) {
  const chips = hits.map((hit) => buildChip(side, hit, () => drop(hit, side)));
  return build("div", { class: "group", role: "group", "aria-label": title }, build("span", { text: title }), ...chips);
}

function buildChip(side, hit, remove) {
  const chip = build("button", {
    type: "button", class: `chip ${side}`, title: "Remove", "aria-label": `Remove ${labelOf(hit)}`, on: { click: remove },
  });
  if (hit.modality === "image") {
    const image = build("img", { alt: "" });
    showPicture(image, hit);
    chip.append(image);
  }
  chip.append(build("span", { text: labelOf(hit) }), build("span", { "aria-hidden": "true", text: "×" }));
  return chip;
}
