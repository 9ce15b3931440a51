// What is said about an answer, once it is there: to everybody in a line, and to screen readers.

import { hasFilter, isAsking } from "../question/question.js";
import { PAGE_SIZE } from "../question/requests.js";
import { find } from "../ui/elements.js";
import { plural, spoken } from "../ui/words.js";
import { isGood, isNothingGood, levelOf } from "./relevance.js";

const NAMES = { image: ["picture", "pictures"], text: ["text", "texts"] };

/** Say how many hits match well, and how long the answer took. News and further pages are not spoken. */
export function sayAnswer(results, { question, took }) {
  find("#answer").textContent = isAsking(question) ? `${matchesOf(results, question)}Answered in ${Math.max(1, Math.round(took))} ms` : "";
}

/** Say why there is nothing to see, if there is nothing. `unknownFields` are those of the filters that no content has. */
export function sayNothing(results, question, unknownFields) {
  const isEmpty = Object.values(results).every(({ hits }) => hits.length === 0);
  const nothing = find("#nothing");
  nothing.hidden = !isEmpty;
  find("#nothing-words").textContent = reasonFor(question, unknownFields);
  find("#clear-filters").hidden = !hasFilter(question);
}

function reasonFor(question, unknownFields) {
  if (!isAsking(question) && !hasFilter(question)) return "Nothing here yet. Uploads appear as soon as they are searchable.";
  if (unknownFields.length === 0) return hasFilter(question) ? "Nothing found. Try fewer filters or other words." : "Nothing found. Try other words.";
  const names = unknownFields.map((field) => `“${field.replace(/^metadata\./, "")}”`).join(" or ");
  return `Nothing found, because nothing has ${names}. Remove ${unknownFields.length === 1 ? "this filter" : "these filters"}.`;
}

function matchesOf(results, question) {
  if (isNothingGood(question, results)) return "Nothing matches well. ";
  const counted = Object.entries(NAMES)
    .map(([modality, names]) => [(results[modality]?.hits ?? []).map((hit) => levelOf(question, hit)), names])
    .filter(([levels]) => levels.length > 0 && levels[0] !== null)
    .map(([levels, names]) => [levels.filter(isGood).length, names])
    .filter(([number]) => number > 0)
    .map(([number, names]) => (number % PAGE_SIZE === 0 ? `${spoken(number)} or more ${names[1]}` : plural(number, ...names)));
  return counted.length === 0 ? "" : `${counted.join(" and ")} match well. `;
}
