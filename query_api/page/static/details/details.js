// A dialog with everything that the index has of one content. The arrow keys lead to the next hit.

import { build, find } from "../ui/elements.js";
import { labelOf } from "../ui/words.js";
import { buildActions } from "./actions.js";
import { buildFacts, buildNumbers } from "./facts.js";
import { buildPicture } from "./large_picture.js";

export class Details {
  /**
   * `actions` are `like(hit)`, `example(hit, side)`, `deleted(hit)`; `hits()` returns the hits that are shown;
   * `turned(hit)` and `closed()` tell what a person did.
   */
  constructor({ actions, hits, turned, closed }) {
    Object.assign(this, { actions, hits, turned, closed });
    this.dialog = find("#details");
    this.hit = null;
    this.dialog.addEventListener("close", () => this.#tellClosed());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("keydown", (event) => this.#turnByKey(event));
  }

  /** Show a content. The address is the caller's concern. */
  show(hit) {
    this.hit = hit;
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.className : null;
    this.dialog.replaceChildren(this.#build(hit));
    if (!this.dialog.open) this.dialog.showModal();
    if (focused) [...this.dialog.querySelectorAll("button")].find((button) => button.className === focused)?.focus();
  }

  /** Close without telling the caller, which knows. */
  hide() {
    this.hit = null;
    if (this.dialog.open) this.dialog.close();
  }

  #tellClosed() {
    if (this.hit === null) return;
    const { content_id: id } = this.hit;
    this.hit = null;
    this.closed();
    if (isFocusLeft()) document.querySelector(`main .hit[data-id="${CSS.escape(id)}"] .open`)?.focus({ preventScroll: false });
  }

  #build(hit) {
    const isPicture = hit.modality === "image";
    return build(
      "div",
      { class: isPicture ? "inside" : "inside without-picture" },
      this.#buildHead(hit),
      isPicture ? buildPicture(hit) : null,
      build(
        "div",
        { class: "known" },
        hit.text ? build("p", { class: "whole", text: hit.text }) : null,
        buildFacts(hit),
        buildNumbers(hit),
        buildActions(hit, { ...this.actions, close: () => this.dialog.close(), leave: () => this.hide() }),
      ),
    );
  }

  #buildHead(hit) {
    return build(
      "div",
      { class: "head" },
      build("h2", { id: "details-title", text: labelOf(hit) }),
      build(
        "div",
        { class: "turn" },
        this.#buildTurn("previous", "Previous", "‹", this.#neighbour(-1)),
        this.#buildTurn("next", "Next", "›", this.#neighbour(1)),
        build("button", { type: "button", class: "icon close", "aria-label": "Close", text: "×", on: { click: () => this.dialog.close() } }),
      ),
    );
  }

  #buildTurn(name, label, sign, hit) {
    return build("button", {
      type: "button", class: `icon ${name}`, "aria-label": label, text: sign, disabled: hit === undefined, on: { click: () => this.#turnTo(hit) },
    });
  }

  #turnByKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || event.target.matches("input, textarea") || event.altKey) return;
    event.preventDefault();
    this.#turnTo(this.#neighbour(step));
  }

  #turnTo(hit) {
    if (hit === undefined) return;
    this.show(hit);
    this.turned(hit);
  }

  #neighbour(step) {
    const hits = this.hits();
    const position = hits.findIndex(({ content_id }) => content_id === this.hit?.content_id);
    return position === -1 ? undefined : hits[position + step];
  }
}

/** The browser tells a little later that the dialog is closed. Whoever has gone on meanwhile keeps the focus. */
function isFocusLeft() {
  const focused = document.activeElement;
  return focused === null || focused === document.body || focused.closest("main .hit") !== null;
}
