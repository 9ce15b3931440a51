// Which requests of the service answer a question.

import { isAsking } from "./question.js";

export const PAGE_SIZE = 48;
const LESS = -0.5; // a negative example weighs less than a positive one, so that it does not dominate the ranking
const HIT_FIELDS = ["text", "metadata", "thumbnail_url"];
const DAY_MS = 86_400_000;

/** Return the path and the body that answer a question with `k` contents of each modality. */
export function requestOf(question, k) {
  const body = { k, include: HIT_FIELDS, ...filterOf(question) };
  if (question.modality !== null) body.modality = question.modality;
  if (!isAsking(question)) return { path: "/v1/browse", body };
  if (isByExamples(question)) return { path: "/v1/recommend", body: { ...body, ...examplesOf(question) } };
  return { path: "/v1/search", body: { ...body, ...queryOf(question) } };
}

/** Return the path and the body that answer the next page, given the cursor of the previous answer. */
export function nextRequestOf(question, cursor) {
  const { path, body } = requestOf(question, PAGE_SIZE);
  return path === "/v1/browse" ? { path, body: { ...body, cursor } } : { path: "/v1/search", body: { cursor, k: PAGE_SIZE } };
}

/** Return the body that asks for contents with these ids, with all that a hit shows. */
export const contentsRequest = (ids) => ({
  k: ids.length, include: HIT_FIELDS, filter: { must: [{ field: "content_id", any_of: ids }] },
});

/** Return `{filter}` for what the question has chosen, without the filter on one field if `except` names it. */
export function filterOf({ where, ranges }, except = null) {
  const must = [
    ...Object.entries(where).map(([field, values]) => ({ field, any_of: values.flatMap((value) => readingsOf(field, value)) })),
    ...Object.entries(ranges).map(([field, range]) => ({ field, ...boundsOf(field, range) })),
  ].filter(({ field }) => field !== except);
  return must.length === 0 ? {} : { filter: { must } };
}

/** Return the query of a search: one part alone, or several weighted ones. */
export function queryOf(question) {
  const terms = termsOf(question);
  return terms.length === 1 && terms[0].weight === undefined ? terms[0] : { terms };
}

const isByExamples = ({ text, picture, more }) => text.trim() === "" && picture === null && more.length > 0;

function examplesOf({ more, less }) {
  const named = (hits) => hits.map(({ content_id }) => ({ content_id }));
  return { positive: named(more), negative: named(less) };
}

function termsOf({ text, picture, more, less }) {
  const terms = [];
  if (text.trim() !== "") terms.push({ text: text.trim() });
  if (picture !== null) terms.push({ image: picture.base64 });
  for (const hit of more) terms.push({ content_id: hit.content_id });
  for (const hit of less) terms.push({ content_id: hit.content_id, weight: LESS });
  return terms;
}

/** Return the values that a chosen text may stand for: "true" may be the text or the truth value. */
function readingsOf(field, value) {
  if (!field.startsWith("metadata.") || !["true", "false"].includes(value)) return [value];
  return [value, value === "true"];
}

/** Return the bounds of a range. A day is counted as a whole, in the person's time zone. */
function boundsOf(field, { from, to }) {
  if (field !== "occurred_at") return { ...(from === "" ? {} : { gte: Number(from) }), ...(to === "" ? {} : { lte: Number(to) }) };
  const startOf = (day) => new Date(`${day}T00:00`);
  return {
    ...(from === "" ? {} : { gte: startOf(from).toISOString() }),
    ...(to === "" ? {} : { lt: new Date(startOf(to).getTime() + DAY_MS).toISOString() }),
  };
}
