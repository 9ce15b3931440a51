// The search box: what a person types, and the buttons around it.

import { find } from "../ui/elements.js";

/** `type(text)` is called while a person types, `enter(text)` when they have decided, `clear()` by the button. */
export function watchSearchBox({ type, enter, clear }) {
  const input = find("#text");
  input.addEventListener("input", (event) => { if (!event.isComposing) type(input.value); });
  input.addEventListener("compositionend", () => type(input.value));
  find("#search").addEventListener("submit", (event) => {
    event.preventDefault();
    enter(input.value);
  });
  find("#clear").addEventListener("click", clear);
  if (window.matchMedia("(max-width: 40rem), (hover: none)").matches) input.placeholder = "Search or take a photo";
}
