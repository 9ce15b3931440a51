// Keys that work everywhere on the page: "/" searches, Escape clears, and a second Escape restores.

import { find } from "./elements.js";

/** `escape()` returns whether it had something to do. */
export function watchKeyboard({ escape }) {
  const input = find("#text");
  document.addEventListener("keydown", (event) => {
    if (find("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const isWriting = event.target.matches?.("input:not([type=checkbox], [type=radio]), textarea, select");
    if (event.key === "/" && !isWriting) {
      event.preventDefault();
      input.focus();
      input.select();
    } else if (event.key === "Escape" && escape()) {
      event.preventDefault();
    }
  });
}
