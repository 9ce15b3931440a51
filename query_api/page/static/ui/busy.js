// A thin bar above the page while an answer takes long.

import { find } from "./elements.js";

const PATIENCE_MS = 300; // a faster answer needs no bar, and a bar that only flashes disturbs

let timer = null;

/** Show that an answer is awaited, once that has lasted for a moment. */
export function showBusy(isBusy) {
  find("#results").setAttribute("aria-busy", String(isBusy));
  if (!isBusy) {
    clearTimeout(timer);
    timer = null;
    show(false);
  } else {
    timer ??= setTimeout(() => show(true), PATIENCE_MS);
  }
}

function show(isShown) {
  find("#progress").hidden = !isShown;
  find("#results").classList.toggle("is-asking", isShown);
}
