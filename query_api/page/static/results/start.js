// What an empty page offers: examples out of the index's own contents, and what was searched for last.

import { forgetTexts, recentTexts } from "../question/recent.js";
import { build, find } from "../ui/elements.js";
import { examplesOf, findExamples, isLookingForExamples } from "./examples.js";

let wanted = null; // {modality} while the page shows what the offers stand beside

/** Show the offers beside the newest contents of a modality. `search(text)` searches for one of them. */
export function showStart(results, { isShown, modality }, search) {
  wanted = isShown ? { modality } : null;
  if (isShown) findExamples(results, () => showOffers(search));
  showOffers(search);
}

function showOffers(search) {
  const start = find("#start");
  const tries = wanted ? examplesOf(wanted.modality) : [];
  const recent = wanted ? recentTexts() : [];
  const groups = [["Try", tries, null], ["Recent", recent, () => { forgetTexts(); showOffers(search); }]].filter(([, texts]) => texts.length > 0);
  start.hidden = groups.length === 0 && !(wanted && isLookingForExamples()); // their room is kept, so that nothing moves
  if (start.dataset.shown === JSON.stringify(groups)) return; // news must not take the focus away
  start.dataset.shown = JSON.stringify(groups);
  start.replaceChildren(...groups.map(([title, texts, forget]) => buildGroup(title, texts, { search, forget })));
}

function buildGroup(title, texts, { search, forget }) {
  const chip = (text) => build("button", { type: "button", class: "chip plain", on: { click: () => search(text) } }, build("span", { text }));
  const buttons = texts.map(chip);
  if (forget) buttons.push(build("button", { type: "button", class: "text-button", text: "Forget", "aria-label": "Forget recent searches", on: { click: forget } }));
  return build("div", { class: "group", role: "group", "aria-label": title === "Try" ? "Example searches" : "Recent searches" }, build("span", { text: title }), ...buttons);
}
