// How well a hit answers the question, from its percentile: the share of background queries that it beats.

import { isByPicture, isByText } from "../question/question.js";

/**
 * The least percentiles of the words. The background of a text is nonsense, which reaches 0.9 rarely. The
 * background of a picture are the index's own pictures, so 0.5 is as near as half of all neighbours are.
 */
const LEAST_FOR_TEXT = { strong: 0.98, fair: 0.9 };
const LEAST_FOR_PICTURE = { strong: 0.5, fair: 0.05 };
const LEVELS = ["strong", "fair", "weak", "none"];
export const NUM_CLOSEST = 12; // shown of each modality if nothing matches well
const NUM_NEAR_PICTURES = 24; // the nearest pictures of a picture are worth seeing, however far they are

/** Return "strong", "fair", "weak" or "none"; null without a percentile. Negative scores are "none". */
export function levelOf(question, { score, percentile }) {
  if (percentile === undefined || percentile === null) return null;
  const least = isByPicture(question) ? LEAST_FOR_PICTURE : LEAST_FOR_TEXT;
  if (score <= 0) return "none";
  if (percentile >= least.strong) return "strong";
  if (percentile >= least.fair) return "fair";
  return percentile > 0 ? "weak" : "none";
}

/** Return the length of a hit's bar, from 0 to 1. For a text it begins at 0.8, because nonsense lies below. */
export function shareOf(question, { percentile }) {
  return Math.max(0.04, isByText(question) ? (percentile - 0.8) / 0.2 : percentile);
}

export const isGood = (level) => level === null || level === "strong" || level === "fair";

/** Return how well the best hit answers: a smaller number is better. Without percentiles all are equal. */
export function rankOfBest(question, hits) {
  if (hits.length === 0) return LEVELS.length;
  const level = levelOf(question, hits[0]);
  return level === null ? 0 : LEVELS.indexOf(level);
}

/** Return how many of the hits to show before the divider; `isNothingGood` is about all modalities together. */
export function numBeforeDivider(question, hits, isNothingGood) {
  if (isNothingGood) return Math.min(hits.length, NUM_CLOSEST);
  const numGood = hits.findIndex((hit) => !isGood(levelOf(question, hit)));
  if (numGood === -1) return hits.length;
  return isByPicture(question) && numGood > 0 ? Math.min(hits.length, Math.max(numGood, NUM_NEAR_PICTURES)) : numGood;
}

/** Whether the answer has percentiles, and at least one of its hits is good. */
export const isSomethingGood = (question, results) =>
  Object.values(results).some(({ hits }) => ["strong", "fair"].includes(hits.length > 0 && levelOf(question, hits[0])));

/** Whether the answer has percentiles, and none of its hits is good. */
export function isNothingGood(question, results) {
  const best = Object.values(results).flatMap(({ hits }) => hits.slice(0, 1));
  return (isByText(question) || isByPicture(question)) && best.length > 0 && best.every((hit) => !isGood(levelOf(question, hit)));
}

/** The least percentile of a hit that matches well. */
export const LEAST_GOOD = { text: LEAST_FOR_TEXT.fair, picture: LEAST_FOR_PICTURE.fair };
