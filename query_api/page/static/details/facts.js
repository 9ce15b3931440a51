// What is known of a content, in plain words; scores and versions behind a switch.

import { build } from "../ui/elements.js";
import { fieldName, givenTitle, valueName } from "../ui/words.js";
import { webLink } from "../results/thumbnails.js";

let areNumbersOpen = false; // as a person left the switch

export function buildFacts(hit) {
  const metadata = Object.entries(hit.metadata ?? {})
    .filter(([, value]) => value !== givenTitle(hit) || typeof value !== "string")
    .map(([key, value]) => [fieldName(key), valueName(value)]);
  return buildList([
    ...metadata,
    ["Owner", hit.owner_id],
    ["Source", hit.source],
    ["Uploaded", new Date(hit.occurred_at).toLocaleString()],
    ["Because of", hit.because?.content_id],
    ["Content ID", hit.content_id],
    ["Link", buildLink(hit)],
  ]);
}

/** Build the switch that shows what a person needs who looks into the search itself. */
export function buildNumbers(hit) {
  const numbers = buildList([
    ["Score (cosine)", hit.score?.toFixed(4)],
    ["Percentile", hit.percentile?.toFixed(3)],
    ["Version", hit.version],
  ]);
  if (numbers.children.length === 0) return null;
  const details = build("details", { class: "numbers", open: areNumbersOpen }, build("summary", { text: "Numbers" }), numbers);
  details.addEventListener("toggle", () => { areNumbersOpen = details.open; });
  return details;
}

function buildList(facts) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return build("dl", {}, ...known.flatMap(([name, value]) => [
    build("dt", { text: name }), build("dd", {}, value instanceof Node ? value : String(value)),
  ]));
}

function buildLink({ link }) {
  if (webLink(link) === null) return null;
  return build("a", { href: link, rel: "noreferrer noopener nofollow", target: "_blank", text: link });
}
