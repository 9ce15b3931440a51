// One upload as a line of the dialog: what it is, how far it is, and what became of it.

import { build, find } from "../ui/elements.js";

export class UploadLine {
  constructor({ file, text }, contentId) {
    this.said = build("span", { class: "said", text: "Waiting" });
    this.progress = build("progress", { max: "1", value: "0", "aria-label": "Sent", hidden: true });
    this.action = build("span", { class: "action" });
    const name = file?.name ?? text.slice(0, 60);
    this.item = build(
      "li", {}, file ? buildPreview(file) : build("span", { class: "mark" }),
      build("span", { class: "what", text: name, title: contentId }), this.action, build("div", { class: "state" }, this.progress, this.said),
    );
    find("#uploads").prepend(this.item);
  }

  begin() {
    this.item.classList.remove("is-refused");
    this.action.replaceChildren();
    this.said.textContent = "Uploading";
  }

  /** Show how much has left. What follows is the service's work. */
  sent(share) {
    this.progress.hidden = share >= 1;
    this.progress.value = share;
    this.said.textContent = share >= 1 ? "Waiting until it is searchable" : `Uploading, ${Math.floor(100 * share)} %`;
  }

  searchable(seconds, details, show) {
    this.#end("is-searchable", `Searchable after ${seconds} s`, "Show it", show);
    this.said.title = details;
  }

  /** Say why it failed; `again`, if there is one, tries once more. */
  refused(reason, again = null) {
    this.#end("is-refused", reason, "Try again", again);
  }

  #end(outcome, words, label, act) {
    this.progress.hidden = true;
    this.item.classList.add(outcome);
    this.said.textContent = words;
    this.action.replaceChildren(...(act === null ? [] : [build("button", { type: "button", class: "text-button", text: label, on: { click: act } })]));
  }
}

function buildPreview(file) {
  const address = URL.createObjectURL(file);
  const image = build("img", { alt: "", src: address, on: { load: () => URL.revokeObjectURL(address) } });
  image.addEventListener("error", () => image.replaceWith(build("span", { class: "mark" })));
  return image;
}
