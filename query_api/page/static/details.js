// A dialog with everything that the index has of one content.

import { build, find } from "./elements.js";
import { nameOf } from "./cards.js";
import { showPicture, webLink } from "./thumbnails.js";

/** Open a hit's details. `like(hit)` searches with it alone, `example(hit, side)` puts it into the basket. */
export function openDetails(hit, { like, example }) {
  const dialog = find("#details");
  const close = () => dialog.close();
  const act = (action) => () => { close(); action(); };
  dialog.replaceChildren(
    build(
      "div",
      { class: hit.modality === "image" ? "inside" : "inside without-picture" },
      hit.modality === "image" ? buildPicture(hit) : null,
      build(
        "div",
        {},
        build(
          "div",
          { class: "head" },
          build("h2", { id: "details-title", text: hit.content_id }),
          build("button", { type: "button", class: "icon", "aria-label": "Close", text: "×", on: { click: close } }),
        ),
        hit.text ? build("p", { class: "whole", text: hit.text }) : null,
        build("dl", {}, ...factsOf(hit).flatMap(([name, value]) => [build("dt", { text: name }), build("dd", {}, value)])),
        build(
          "div",
          { class: "actions" },
          build("button", { type: "button", class: "button", text: "Find similar", on: { click: act(() => like(hit)) } }),
          build("button", { type: "button", class: "text-button", text: "More like this", on: { click: act(() => example(hit, "more")) } }),
          build("button", { type: "button", class: "text-button", text: "Less like this", on: { click: act(() => example(hit, "less")) } }),
        ),
      ),
    ),
  );
  dialog.onclick = (event) => { if (event.target === dialog) close(); };
  dialog.showModal();
}

function buildPicture(hit) {
  const image = build("img", { alt: nameOf(hit), referrerpolicy: "no-referrer" });
  showPicture(image, hit);
  return build("div", { class: "picture" }, image);
}

function factsOf(hit) {
  const link = webLink(hit.link);
  const facts = [
    ["Score", hit.score?.toFixed(4)],
    ["Percentile", hit.percentile?.toFixed(3)],
    ["Because of", hit.because?.content_id],
    ["Owner", hit.owner_id],
    ["Source", hit.source],
    ["Uploaded", new Date(hit.occurred_at).toLocaleString()],
    ["Version", hit.version],
    ...Object.entries(hit.metadata ?? {}),
  ].filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [name, String(value)]);
  if (link !== null) facts.push(["Link", build("a", { href: link, rel: "noreferrer noopener nofollow", target: "_blank", text: link })]);
  return facts;
}
