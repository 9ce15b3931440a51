// A question as an address, so that a search can be reloaded, bookmarked and shared.

import { MAX_TERMS, NOTHING } from "./question.js";

const LISTS = /^(source|owner_id|metadata\..+)$/s;
const BOUNDS = /^(from|to)\.(occurred_at|metadata\..+)$/s;
const DAY = /^\d{4}-\d\d-\d\d$/;

/** Write a question and the id of the content whose details are open. */
export function addressOf({ text, picture, more, less, modality, where, ranges }, opened = null) {
  const parameters = new URLSearchParams();
  if (text.trim() !== "") parameters.set("q", text.trim());
  if (picture !== null) parameters.set("picture", picture.key);
  for (const hit of more) parameters.append("more", hit.content_id);
  for (const hit of less) parameters.append("less", hit.content_id);
  if (modality !== null) parameters.set("modality", modality);
  for (const [field, values] of Object.entries(where)) for (const value of values) parameters.append(field, value);
  for (const [field, range] of Object.entries(ranges)) {
    for (const bound of ["from", "to"]) if (range[bound] !== "") parameters.set(`${bound}.${field}`, range[bound]);
  }
  if (opened !== null) parameters.set("open", opened);
  const query = parameters.toString();
  return query === "" ? "/" : `/?${query}`;
}

/**
 * Read an address. Examples, the picture and the opened content are named by id only: `more`, `less`, `picture`
 * and `opened` beside the question, whose own examples and picture are empty.
 */
export function readAddress(address) {
  const parameters = new URL(address, location.origin).searchParams;
  const modality = parameters.get("modality");
  const question = {
    ...NOTHING,
    text: parameters.get("q") ?? "",
    modality: ["image", "text"].includes(modality) ? modality : null,
    where: readLists(parameters),
    ranges: readRanges(parameters),
  };
  const more = parameters.getAll("more").slice(0, MAX_TERMS - 2);
  const less = parameters.getAll("less").slice(0, MAX_TERMS - 2 - more.length);
  return { question, more, less, picture: parameters.get("picture"), opened: parameters.get("open") };
}

function readLists(parameters) {
  const fields = [...new Set(parameters.keys())].filter((name) => LISTS.test(name));
  return Object.fromEntries(fields.map((field) => [field, [...new Set(parameters.getAll(field))]]));
}

function readRanges(parameters) {
  const ranges = {};
  for (const [name, value] of parameters) {
    const [, bound, field] = BOUNDS.exec(name) ?? [];
    if (field === undefined || !isBound(field, value)) continue;
    ranges[field] = { from: "", to: "", ...ranges[field], [bound]: value };
  }
  return ranges;
}

const isDay = (text) => DAY.test(text) && !Number.isNaN(Date.parse(`${text}T00:00`));
const isNumber = (text) => text.trim() !== "" && Number.isFinite(Number(text));
const isBound = (field, value) => (field === "occurred_at" ? isDay(value) : isNumber(value));
