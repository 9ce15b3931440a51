// Uploads from the page: the service publishes them, and the page waits until searches find them.

import { find } from "../ui/elements.js";
import { mayPass, reasonOf, sendForm } from "../search/service.js";
import { UploadLine } from "./line.js";

const TIMEOUT_MS = 30_000;
const NUM_AT_ONCE = 3;
const NOTHING_CHOSEN = "Nothing to upload yet: choose pictures, or write a text below";
const HAS_TOUCH = window.matchMedia("(hover: none)"); // where nothing can be dropped
const TOO_LATE = "Sent. It is not searchable yet; the search shows it when it is.";

/** Connect the upload dialog. `seen()` is called when an upload has become searchable, `show(id)` shows it. */
export function watchUploads({ seen, show }) {
  const dialog = find("#upload");
  find("#open-upload").hidden = find('meta[name="cliptide-can-publish"]').content !== "true";
  find("#open-upload").addEventListener("click", () => {
    find("#upload-chosen").textContent = chosenWords(find("#upload-files").files);
    dialog.showModal();
  });
  find("#close-upload").addEventListener("click", () => dialog.close());
  const act = { seen, show: (id) => { dialog.close(); show(id); } };
  find("#upload-form").addEventListener("submit", (event) => {
    event.preventDefault();
    uploadAll(act);
  });
  watchDropZone(find("#upload-zone"), (files) => uploadEach([...files].map((file) => ({ file })), act));
  find("#upload-files").addEventListener("change", ({ target }) => { find("#upload-chosen").textContent = chosenWords(target.files); });
}

function chosenWords(files) {
  if (files.length === 0) return HAS_TOUCH.matches ? "Choose pictures, or take a photo" : "Drop pictures here, or choose them";
  return files.length === 1 ? files[0].name : `${files.length} files chosen`;
}

/** Files that are dropped are uploaded at once, because there is nothing left to decide. */
function watchDropZone(zone, take) {
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("is-over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("is-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove("is-over");
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files);
  });
}

async function uploadAll(act) {
  const files = [...find("#upload-files").files];
  const text = find("#upload-text").value.trim();
  const contents = [...files.map((file) => ({ file })), ...(text === "" ? [] : [{ text }])];
  if (contents.length === 0) {
    find("#upload-chosen").textContent = NOTHING_CHOSEN;
    find("#upload-files").focus();
    return;
  }
  find("#upload-files").value = "";
  find("#upload-chosen").textContent = chosenWords([]);
  find("#upload-text").value = "";
  await uploadEach(contents, act);
}

/** Upload contents, a few at a time, with what the fields of the form say. */
async function uploadEach(contents, act) {
  const fields = readFields();
  const chosenId = find("#upload-id").value.trim();
  find("#upload-id").value = "";
  const waiting = contents.map((content, position) => {
    const content_id = contents.length === 1 && chosenId !== "" ? chosenId : makeId(content, position);
    return { content, content_id, line: new UploadLine(content, content_id) };
  });
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await upload(next, fields, act);
  };
  await Promise.all(Array.from({ length: NUM_AT_ONCE }, worker));
}

async function upload({ content, content_id, line }, fields, act) {
  const began = performance.now();
  try {
    line.begin();
    const path = `/v1/contents?wait=searchable&timeout_ms=${TIMEOUT_MS}`;
    const { shard, offset } = await sendForm(path, formOf(content, { ...fields, content_id }), (share) => line.sent(share));
    line.searchable(((performance.now() - began) / 1000).toFixed(2), `${shard}, offset ${offset}`, () => act.show(content_id));
    act.seen();
  } catch (error) {
    if (error.code === "not_searchable_in_time") line.refused(TOO_LATE);
    else line.refused(reasonOf(error), mayPass(error) ? () => upload({ content, content_id, line }, fields, act) : null);
  }
}

function readFields() {
  const value = (name) => find(`#upload-${name}`).value.trim() || undefined;
  const tags = (value("tags") ?? "").split(",").map((tag) => tag.trim()).filter((tag) => tag !== "");
  const metadata = tags.length > 0 ? { tags } : {};
  return { title: value("title-text"), owner_id: value("owner"), source: value("source") ?? "", link: value("link"), metadata };
}

function formOf({ file, text }, fields) {
  const form = new FormData();
  form.append("event", JSON.stringify(text === undefined ? fields : { ...fields, content: { text } }));
  if (file !== undefined) form.append("image", file);
  return form;
}

function makeId({ file }, position) {
  const name = (file?.name ?? "text").replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 80) || "upload";
  return `${name}-${Date.now().toString(36)}${position === 0 ? "" : `-${position}`}`;
}
