// Uploads from the page: the service publishes them, and the page waits until searches find them.

import { build, find } from "./elements.js";
import { call, reasonOf } from "./service.js";

const TIMEOUT_MS = 30_000;

/** Connect the upload dialog. `seen()` is called when an upload has become searchable. */
export function watchUploads(seen) {
  const dialog = find("#upload");
  find("#open-upload").hidden = find('meta[name="cliptide-can-publish"]').content !== "true";
  find("#open-upload").addEventListener("click", () => dialog.showModal());
  find("#close-upload").addEventListener("click", () => dialog.close());
  find("#upload-form").addEventListener("submit", (event) => {
    event.preventDefault();
    uploadAll(seen);
  });
}

async function uploadAll(seen) {
  const files = [...find("#upload-files").files];
  const text = find("#upload-text").value.trim();
  const contents = [...files.map((file) => ({ file })), ...(text === "" ? [] : [{ text }])];
  const chosenId = find("#upload-id").value.trim();
  const fields = { owner_id: find("#upload-owner").value.trim() || undefined, source: find("#upload-source").value.trim() };
  find("#upload-files").value = "";
  find("#upload-text").value = "";
  find("#upload-id").value = "";
  const uploads = contents.map((content, position) => {
    const content_id = contents.length === 1 && chosenId !== "" ? chosenId : makeId(content, position);
    return upload(content, { ...fields, content_id }, seen);
  });
  if (contents.length === 0) find("#upload-files").focus();
  await Promise.all(uploads);
}

async function upload(content, fields, seen) {
  const line = buildLine(content, fields.content_id);
  const began = performance.now();
  try {
    const response = await call(`/v1/contents?wait=searchable&timeout_ms=${TIMEOUT_MS}`, { method: "POST", body: formOf(content, fields) });
    const { shard, offset } = await response.json();
    line.say("is-searchable", `Searchable after ${((performance.now() - began) / 1000).toFixed(2)} s`, `${shard}, offset ${offset}`);
    seen();
  } catch (error) {
    line.say("is-refused", reasonOf(error));
  }
}

function formOf({ file, text }, fields) {
  const form = new FormData();
  form.append("event", JSON.stringify(text === undefined ? fields : { ...fields, content: { text } }));
  if (file !== undefined) form.append("image", file);
  return form;
}

function buildLine({ file, text }, contentId) {
  const mark = file ? build("img", { alt: "", src: URL.createObjectURL(file) }) : build("span", { class: "mark" });
  const said = build("span", { class: "said", text: "Uploading" });
  const item = build("li", {}, mark, build("span", { text: file?.name ?? text.slice(0, 60), title: contentId }), said);
  find("#uploads").prepend(item);
  return {
    say(outcome, words, details = "") {
      item.classList.add(outcome);
      said.textContent = words;
      said.title = details;
    },
  };
}

function makeId({ file }, position) {
  const name = (file?.name ?? "text").replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 80) || "upload";
  return `${name}-${Date.now().toString(36)}${position === 0 ? "" : `-${position}`}`;
}
