// What went wrong, in words above the results. A lost connection is tried again by itself.

import { build, find } from "../ui/elements.js";
import { mayPass, reasonOf } from "./service.js";

const WAITS_SECONDS = [1, 2, 5, 10, 20];

export class Trouble {
  /** `retry()` makes the failed search again. */
  constructor(retry) {
    this.retry = retry;
    this.numFailed = 0;
    this.isOfSearch = false;
    this.timer = null;
    window.addEventListener("offline", () => this.searchFailed(new TypeError("the network is lost")));
    window.addEventListener("online", () => { if (this.timer !== null) this.#retryNow(); });
  }

  /** Say something that the next decision of the person takes away. */
  say(words) {
    this.#show(words, []);
    this.isOfSearch = false;
  }

  /** A search has failed. The results of the last answer stay, dimmed. */
  searchFailed(error) {
    const isPassing = mayPass(error);
    const again = build("button", { type: "button", class: "text-button", text: "Try again now", on: { click: () => this.#retryNow() } });
    this.#show(`${reasonOf(error)}${isPassing ? " The page tries again by itself. These results may be old." : ""}`, isPassing ? [again] : []);
    this.isOfSearch = true;
    find("#results").classList.add("is-old");
    if (isPassing) this.#retryLater(error.retryAfter ?? WAITS_SECONDS[Math.min(this.numFailed++, WAITS_SECONDS.length - 1)]);
  }

  /** An answer has come: what was said about a failed search is over. */
  searchAnswered() {
    this.numFailed = 0;
    clearTimeout(this.timer);
    this.timer = null;
    find("#results").classList.remove("is-old");
    if (this.isOfSearch) this.hide();
  }

  /** A person has decided something: what was said about anything but a failed search is over. */
  hideSaid() {
    if (!this.isOfSearch) this.hide();
  }

  hide() {
    find("#trouble").hidden = true;
    find("#trouble").replaceChildren();
    this.isOfSearch = false;
  }

  #show(words, actions) {
    find("#trouble").hidden = false;
    if (find("#trouble span")?.textContent === words) return; // a screen reader would speak it again
    find("#trouble").replaceChildren(build("span", { text: words }), ...actions);
  }

  #retryLater(seconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#retryNow(), seconds * 1000);
  }

  #retryNow() {
    clearTimeout(this.timer);
    this.timer = null;
    this.retry();
  }
}
