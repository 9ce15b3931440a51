// What a long press on a hit offers, where nothing can hover.

import { build, find } from "../ui/elements.js";
import { labelOf } from "../ui/words.js";

/** Open the menu of a hit. `actions` are `open(hit)`, `like(hit)` and `example(hit, side)`. */
export function openMenu(hit, { open, like, example }) {
  const menu = find("#menu");
  const entry = (words, act) => build("button", { type: "button", class: "entry", text: words, on: { click: () => { menu.close(); act(); } } });
  menu.replaceChildren(
    build("h2", { id: "menu-title", text: labelOf(hit) }),
    entry("More like this", () => example(hit, "more")),
    entry("Less like this", () => example(hit, "less")),
    entry("Find similar", () => like(hit)),
    entry("Details", () => open(hit)),
    build("button", { type: "button", class: "entry quiet", text: "Cancel", on: { click: () => menu.close() } }),
  );
  menu.onclick = (event) => { if (event.target === menu) menu.close(); };
  menu.showModal();
}
