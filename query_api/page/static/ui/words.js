// How numbers, times and contents are called in words.

const NUMBERS = new Intl.NumberFormat("en");
const MAX_CHARACTERS = 120;
export const TITLE_KEYS = ["title", "caption", "name"];

export const spoken = (number) => NUMBERS.format(number);
export const plural = (number, one, many) => `${spoken(number)} ${number === 1 ? one : many}`;

/** Say how long ago an RFC 3339 time was. */
export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  if (seconds < 10) return "just now";
  const [size, unit] = [[31_536_000, "y"], [86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]]
    .find(([length]) => seconds >= length);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** Return the title that a content was given: its own, or the one in its metadata; null without any. */
export function givenTitle(hit) {
  const metadata = hit.metadata ?? {};
  const titles = [hit.title, ...TITLE_KEYS.map((key) => metadata[key])];
  return titles.find((title) => typeof title === "string" && title.trim() !== "")?.trim() ?? null;
}

/** Return how a content is called: its title, else its text, else its owner, else its id. */
export function nameOf(hit) {
  const name = givenTitle(hit) ?? (hit.modality === "text" ? hit.text : null) ?? hit.owner_id ?? hit.content_id;
  return name.length <= MAX_CHARACTERS ? name : `${name.slice(0, MAX_CHARACTERS - 1)}…`;
}

/** Return what tells a content from others: its title, else its text, else its id. */
export const labelOf = (hit) => (givenTitle(hit) ?? (hit.modality === "text" ? hit.text : null) ?? hit.content_id).slice(0, MAX_CHARACTERS);

/** Write the name of a field as words: `in_stock` and `inStock` become "In stock". */
export function fieldName(key) {
  const words = key.replace(/([\p{Ll}\d])(\p{Lu})/gu, "$1 $2").replace(/[_\-.\s]+/g, " ").trim().toLowerCase();
  return words === "" ? key : words[0].toUpperCase() + words.slice(1);
}

/** Write a value of metadata as words. */
export function valueName(value) {
  if (typeof value === "boolean") return value ? "Yes" : "No";
  if (typeof value === "number") return String(Number(value.toPrecision(12)));
  return Array.isArray(value) ? value.join(", ") : String(value);
}
