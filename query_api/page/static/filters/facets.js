// Counts of the values that contents have, under the current query and filters.

import { isByPicture, isByText, isAsking } from "../question/question.js";
import { filterOf, queryOf } from "../question/requests.js";
import { LEAST_GOOD } from "../results/relevance.js";
import { ask } from "../search/service.js";

const MAX_VALUES = 100;

let hasPercentiles = true;

/**
 * Return the facets of a question by field. A field that has a filter is counted without its own one, so that
 * its other values can be chosen beside. With `hasGood`, only contents that match well are counted.
 */
export async function readFacets(question, hasGood) {
  const chosen = [...Object.keys(question.where), ...Object.keys(question.ranges)];
  const whole = readSome(question, hasGood, {});
  const others = chosen.map((field) => readSome(question, hasGood, { except: field, fields: [field] }));
  if (question.modality !== null) others.push(readSome({ ...question, modality: null }, hasGood, { fields: ["modality"] }));
  const [first, ...rest] = await Promise.all([whole, ...others]);
  return { ...first, fields: Object.assign({}, first.fields, ...rest.map(({ fields }) => fields)) };
}

async function readSome(question, hasGood, { except = null, fields = undefined }) {
  const body = { fields, max_values: MAX_VALUES, modality: question.modality ?? undefined, ...filterOf(question, except) };
  if (!isAsking(question)) return ask("/v1/facets", body);
  const query = { ...body, ...queryOf(question) };
  const least = isByText(question) ? LEAST_GOOD.text : isByPicture(question) ? LEAST_GOOD.picture : null;
  if (least === null || !hasGood || !hasPercentiles) return ask("/v1/facets", query);
  try {
    return await ask("/v1/facets", { ...query, min_percentile: least });
  } catch (error) {
    if (error.status !== 422) throw error;
    hasPercentiles = false; // the service computes none
    return ask("/v1/facets", query);
  }
}
