// On narrow screens the filters are a sheet that covers the lower part of the page.

import { find } from "../ui/elements.js";

const IS_NARROW = "(max-width: 60rem)";

export function watchFilterSheet() {
  const sheet = find("#filter-sheet");
  const filters = find("#filters");
  const home = filters.parentElement;
  const toggle = find("#toggle-filters");
  toggle.addEventListener("click", () => {
    sheet.querySelector(".sheet-body").append(filters);
    sheet.showModal();
    toggle.setAttribute("aria-expanded", "true");
  });
  sheet.addEventListener("close", () => {
    home.prepend(filters);
    toggle.setAttribute("aria-expanded", "false");
  });
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  find("#close-filters").addEventListener("click", () => sheet.close());
  window.matchMedia(IS_NARROW).addEventListener("change", ({ matches }) => { if (!matches && sheet.open) sheet.close(); });
}
