// The question: a text, a picture, examples and filters, as plain values.

export const PAGE_SIZE = 48;
export const MAX_TERMS = 16; // the service takes no more
const LESS = -0.5; // a negative example weighs less than a positive one, so that it does not dominate the ranking
const HIT_FIELDS = ["text", "metadata", "thumbnail_url"];

/** The question at the start. `picture` is `{base64, address}`; examples are hits. */
export const NOTHING = Object.freeze({
  text: "",
  picture: null,
  more: Object.freeze([]),
  less: Object.freeze([]),
  modality: null,
  source: Object.freeze([]),
  owner_id: Object.freeze([]),
});

/** Whether there is something to search for. With filters alone, the newest contents are shown. */
export const isAsking = ({ text, picture, more, less }) =>
  text.trim() !== "" || picture !== null || more.length + less.length > 0;

export const hasFilter = ({ source, owner_id }) => source.length + owner_id.length > 0;

/** Return the path and the body that answer a question with `k` contents of each modality. */
export function requestOf(question, k) {
  const body = { k, include: HIT_FIELDS };
  if (question.modality !== null) body.modality = question.modality;
  const must = ["source", "owner_id"]
    .filter((field) => question[field].length > 0)
    .map((field) => ({ field, any_of: question[field] }));
  if (must.length > 0) body.filter = { must };
  if (!isAsking(question)) return { path: "/v1/browse", body };
  if (isByExamples(question)) return { path: "/v1/recommend", body: { ...body, ...examplesOf(question) } };
  const terms = termsOf(question);
  const query = terms.length === 1 && terms[0].weight === undefined ? terms[0] : { terms };
  return { path: "/v1/search", body: { ...body, ...query } };
}

/** Return the path and the body that answer the next page, given the cursor of the previous answer. */
export function nextRequestOf(question, cursor) {
  const { path, body } = requestOf(question, PAGE_SIZE);
  return path === "/v1/browse" ? { path, body: { ...body, cursor } } : { path: "/v1/search", body: { cursor, k: PAGE_SIZE } };
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

/** Put an example on this side of the basket, or remove it if it is there already. */
export function withExample(question, hit, side) {
  const without = (hits) => hits.filter((other) => other.content_id !== hit.content_id);
  const wasThere = question[side].some((other) => other.content_id === hit.content_id);
  const changed = { ...question, more: without(question.more), less: without(question.less) };
  if (wasThere || changed.more.length + changed.less.length >= MAX_TERMS - 2) return changed;
  return { ...changed, [side]: [...changed[side], hit] };
}

export const sideOf = ({ more, less }, hit) =>
  [["more", more], ["less", less]].find(([, hits]) => hits.some((other) => other.content_id === hit.content_id))?.[0] ?? null;

/** Write the text and the filters as an address, so that a search can be bookmarked and shared. */
export function addressOf({ text, modality, source, owner_id }) {
  const parameters = new URLSearchParams();
  if (text.trim() !== "") parameters.set("q", text.trim());
  if (modality !== null) parameters.set("modality", modality);
  for (const value of source) parameters.append("source", value);
  for (const value of owner_id) parameters.append("owner_id", value);
  const query = parameters.toString();
  return query === "" ? "/" : `/?${query}`;
}

export function questionOf(address) {
  const parameters = new URL(address).searchParams;
  const modality = parameters.get("modality");
  return {
    ...NOTHING,
    text: parameters.get("q") ?? "",
    modality: ["image", "text"].includes(modality) ? modality : null,
    source: parameters.getAll("source"),
    owner_id: parameters.getAll("owner_id"),
  };
}
