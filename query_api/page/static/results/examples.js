// Searches to try, out of the index's own contents. Each was tried first, so that none of them finds nothing.

import { NOTHING } from "../question/question.js";
import { ask } from "../search/service.js";
import { givenTitle } from "../ui/words.js";
import { isGood, levelOf } from "./relevance.js";

const NUM_EXAMPLES = 5;
const NUM_TRIED = 10; // at once
const MAX_TRIED = 40; // a page that is only open should cost little
const MAX_LENGTH = 32; // characters; longer texts are no examples of what one types

const tried = new Set();
const found = []; // {text, modalities}; they stay while the page is open, so that a click meets what a person has seen
let isTrying = false;

/** Return the examples that find something of a modality, or of any if it is null. */
export const examplesOf = (modality) =>
  found.filter(({ modalities }) => modality === null || modalities.includes(modality)).map(({ text }) => text).slice(0, NUM_EXAMPLES);

export const isLookingForExamples = () => isTrying;

/** Look for examples in an answer, until there are enough. `changed()` is called once they were tried. */
export async function findExamples(results, changed) {
  const texts = spread(textsOf(results).filter((text) => !tried.has(text.toLowerCase())), NUM_TRIED).slice(0, MAX_TRIED - tried.size);
  if (isTrying || found.length >= NUM_EXAMPLES || texts.length === 0) return;
  isTrying = true;
  for (const text of texts) tried.add(text.toLowerCase());
  try {
    const { answers } = await ask("/v1/search/batch", { queries: texts.map((text) => ({ text, k: 1 })) });
    const searched = texts.map((text, position) => ({ text, modalities: modalitiesOf(text, answers[position]) }));
    found.push(...searched.filter(({ modalities }) => modalities.length > 0));
  } catch {
    // Without examples the page works as well.
  } finally {
    isTrying = false;
    changed();
  }
}

/** Return the modalities in which a text finds something that matches well. */
function modalitiesOf(text, { results }) {
  const question = { ...NOTHING, text };
  return Object.keys(results).filter((modality) => results[modality].hits.some((hit) => isGood(levelOf(question, hit))));
}

/** Return short titles and texts of the newest contents, else common words of their metadata. */
function textsOf(results) {
  const hits = [...(results.text?.hits ?? []), ...(results.image?.hits ?? [])];
  const texts = hits.map((hit) => givenTitle(hit) ?? hit.text).filter((text) => text && text.length <= MAX_LENGTH && /\p{L}/u.test(text));
  const unique = [...new Map(texts.map((text) => [text.toLowerCase(), text.trim()])).values()];
  return unique.length > 0 ? unique : wordsOfMetadata(hits);
}

function wordsOfMetadata(hits) {
  const values = hits.flatMap(({ metadata }) => Object.values(metadata ?? {})).filter((value) => typeof value === "string" && value.length <= MAX_LENGTH);
  return [...new Set(values)].filter((value) => /\p{L}/u.test(value));
}

const spread = (texts, number) => texts.filter((_, position) => position % Math.ceil(texts.length / number) === 0).slice(0, number);
