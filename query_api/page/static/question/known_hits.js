// Hits by their ids. An address names examples and the opened content by id; this finds the rest.

import { contentsRequest } from "./requests.js";
import { ask } from "../search/service.js";

const MAX_KNOWN = 2000;
const known = new Map();

/** Remember hits of an answer. The newest answer counts. */
export function rememberHits(hits) {
  for (const hit of hits) {
    known.delete(hit.content_id);
    known.set(hit.content_id, hit);
  }
  for (const id of known.keys()) {
    if (known.size <= MAX_KNOWN) return;
    known.delete(id);
  }
}

/** Return the hits with these ids, in this order; contents that are gone are left out. */
export async function findHits(ids) {
  const missing = ids.filter((id) => !known.has(id));
  if (missing.length > 0) {
    const { results } = await ask("/v1/browse", contentsRequest(missing));
    rememberHits(Object.values(results).flatMap(({ hits }) => hits));
  }
  return ids.map((id) => known.get(id)).filter(Boolean);
}
