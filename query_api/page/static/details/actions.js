// What a person can do with a content: look for similar ones, copy its id, open its link, delete it.

import { build, find } from "../ui/elements.js";
import { call, reasonOf } from "../search/service.js";
import { webLink } from "../results/thumbnails.js";

const TIMEOUT_MS = 30_000;

/** `close()` closes the details; `leave()` closes them for another question, which has its own address. */
export function buildActions(hit, { like, example, deleted, close, leave }) {
  const text = (words, click, name = "text-button") => build("button", { type: "button", class: name, text: words, on: { click } });
  const said = build("span", { class: "said", role: "status" });
  const link = webLink(hit.link);
  return build(
    "div",
    { class: "actions" },
    text("Find similar", () => { leave(); like(hit); }, "button"),
    text("More like this", () => { leave(); example(hit, "more"); }),
    text("Less like this", () => { leave(); example(hit, "less"); }),
    text("Copy ID", async () => { said.textContent = (await copy(hit.content_id)) ? "Copied" : "Can't copy here: select the ID."; }),
    link && build("a", { class: "text-button", href: link, rel: "noreferrer noopener nofollow", target: "_blank", text: "Open link" }),
    canDelete() ? buildDelete(hit, { deleted, close, said }) : null,
    said,
  );
}

const canDelete = () => find('meta[name="cliptide-can-publish"]').content === "true";

/** A button that asks once more before it deletes. */
function buildDelete(hit, { deleted, close, said }) {
  const button = build("button", { type: "button", class: "text-button danger", text: "Delete" });
  button.addEventListener("click", async () => {
    if (button.textContent === "Delete") {
      button.textContent = "Delete for good?";
      return;
    }
    button.disabled = true;
    said.textContent = "Deleting";
    try {
      await call(`/v1/contents/${encodeURIComponent(hit.content_id)}?wait=searchable&timeout_ms=${TIMEOUT_MS}`, { method: "DELETE" });
      close();
      deleted(hit);
    } catch (error) {
      said.textContent = reasonOf(error);
      button.disabled = false;
      button.textContent = "Delete";
    }
  });
  button.addEventListener("blur", () => { if (!button.disabled) button.textContent = "Delete"; });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
