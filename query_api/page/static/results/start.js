// What an empty page offers: examples out of the index's own contents, and what was searched for last.

import { forgetTexts, recentTexts } from "../question/recent.js";
import { build, find } from "../ui/elements.js";
import { givenTitle } from "../ui/words.js";

const NUM_EXAMPLES = 5;
const MAX_LENGTH = 32; // characters; longer texts are no examples of what one types

/** Show the offers beside the newest contents. `search(text)` searches for one of them. */
export function showStart(results, isShown, search) {
  const start = find("#start");
  const again = () => showStart(results, isShown, search);
  const examples = isShown ? examplesFrom(results) : [];
  const recent = isShown ? recentTexts() : [];
  const groups = [["Try", examples, null], ["Recent", recent, () => { forgetTexts(); again(); }]].filter(([, texts]) => texts.length > 0);
  start.hidden = groups.length === 0;
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

/** Return short titles and texts of the newest contents, else common words of their metadata. */
function examplesFrom(results) {
  const hits = [...(results.text?.hits ?? []), ...(results.image?.hits ?? [])];
  const texts = hits.map((hit) => givenTitle(hit) ?? hit.text).filter((text) => text && text.length <= MAX_LENGTH && /\p{L}/u.test(text));
  const unique = [...new Map(texts.map((text) => [text.toLowerCase(), text.trim()])).values()];
  return spread(unique.length > 0 ? unique : wordsOfMetadata(hits), NUM_EXAMPLES);
}

function wordsOfMetadata(hits) {
  const values = hits.flatMap(({ metadata }) => Object.values(metadata ?? {})).filter((value) => typeof value === "string" && value.length <= MAX_LENGTH);
  return [...new Set(values)];
}

const spread = (texts, number) => texts.filter((_, position) => position % Math.ceil(texts.length / number) === 0).slice(0, number);
