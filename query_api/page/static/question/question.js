// The question: a text, a picture, examples and filters, as plain values.

export const MAX_TERMS = 16; // the service takes no more

/**
 * The question at the start. `picture` is `{base64, address, key, original}`; examples are hits. `where` names the
 * chosen values of a field, and `ranges` its bounds `{from, to}`, all of them as texts.
 */
export const NOTHING = Object.freeze({
  text: "",
  picture: null,
  more: Object.freeze([]),
  less: Object.freeze([]),
  modality: null,
  where: Object.freeze({}),
  ranges: Object.freeze({}),
});

/** Whether there is something to search for. With filters alone, the newest contents are shown. */
export const isAsking = ({ text, picture, more, less }) =>
  text.trim() !== "" || picture !== null || more.length + less.length > 0;

export const hasFilter = ({ where, ranges }) => Object.keys(where).length + Object.keys(ranges).length > 0;

export const numFilters = ({ where, ranges, modality }) =>
  Object.values(where).flat().length + Object.keys(ranges).length + (modality === null ? 0 : 1);

/** Whether only a text is searched for, or only a picture: then hits have percentiles. */
export const isByText = ({ text, picture, more, less }) =>
  text.trim() !== "" && picture === null && more.length + less.length === 0;
export const isByPicture = ({ text, picture, more, less }) =>
  text.trim() === "" && picture !== null && more.length + less.length === 0;

/** Choose these values of a field; an empty list removes the filter. */
export const withValues = (question, field, values) => ({ ...question, where: without(question.where, field, values.length > 0 && values) });

/** Set the bounds of a field; without any the filter is removed. */
export const withRange = (question, field, range) =>
  ({ ...question, ranges: without(question.ranges, field, (range.from !== "" || range.to !== "") && range) });

export const withoutFilters = (question) => ({ ...question, modality: null, where: NOTHING.where, ranges: NOTHING.ranges });

function without(fields, field, value) {
  const { [field]: _, ...others } = fields;
  return value === false ? others : { ...others, [field]: value };
}

/** Put an example on this side of the basket, or remove it if it is there already. */
export function withExample(question, hit, side) {
  const others = (hits) => hits.filter((other) => other.content_id !== hit.content_id);
  const wasThere = question[side].some((other) => other.content_id === hit.content_id);
  const changed = { ...question, more: others(question.more), less: others(question.less) };
  if (wasThere || changed.more.length + changed.less.length >= MAX_TERMS - 2) return changed;
  return { ...changed, [side]: [...changed[side], hit] };
}

export const sideOf = ({ more, less }, hit) =>
  [["more", more], ["less", less]].find(([, hits]) => hits.some((other) => other.content_id === hit.content_id))?.[0] ?? null;
