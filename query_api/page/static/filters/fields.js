// What a field is called, and in which order fields are shown.

import { TITLE_KEYS, fieldName } from "../ui/words.js";

const TITLES = { source: "Source", owner_id: "Owner", occurred_at: "Uploaded" };
const FIRST = ["metadata", "source", "owner_id", "occurred_at"];

/** Whether people filter by a field. Titles differ from content to content. */
export const isFilter = (field) => field !== "modality" && !TITLE_KEYS.includes(field.replace(/^metadata\./, ""));

export const fieldTitle = (field) => TITLES[field] ?? fieldName(field.replace(/^metadata\./, ""));

/** Metadata comes first, by name; then what every content has. */
export function orderOf(a, b) {
  const place = (field) => FIRST.indexOf(field.startsWith("metadata.") ? "metadata" : field);
  return place(a) - place(b) || (a < b ? -1 : 1);
}

export const sumOfCounts = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);
