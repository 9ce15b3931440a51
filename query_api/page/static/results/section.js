// The hits of one modality: those that match well, a divider, and the rest behind a button.

import { arrange, find } from "../ui/elements.js";
import { isGood, levelOf, numBeforeDivider } from "./relevance.js";

const TITLES = { pictures: ["Pictures", "Newest pictures"], texts: ["Texts", "Newest texts"] };

export class Section {
  /** `openRest()` is called when a person has asked for the hits behind the divider. */
  constructor(element, items, { name, openRest }) {
    this.element = element;
    this.items = items;
    this.name = name;
    this.list = element.querySelector("ol.best");
    this.rest = element.querySelector("ol.rest");
    this.divider = element.querySelector(".divider");
    this.isOpen = false;
    this.shownHits = [];
    this.divider.querySelector("button").addEventListener("click", () => {
      this.openRest();
      (this.rest.querySelector(".open") ?? this.list.lastElementChild?.querySelector(".open"))?.focus();
      openRest();
    });
    new ResizeObserver(() => settleRow(this.list)).observe(this.list);
  }

  openRest() {
    this.isOpen = true;
    this.#show();
  }

  closeRest() {
    this.isOpen = false;
  }

  /** Show hits, the best first. `most` limits those before the divider. */
  show(hits, { question, nothingGood, isComplete, isMixed, most }) {
    this.hits = hits;
    this.isMixed = isMixed;
    this.isRow = Number.isFinite(most);
    this.numBest = Math.min(numBeforeDivider(question, hits, nothingGood), most);
    this.isUnrated = hits.length > 0 && hits[0].score !== undefined && levelOf(question, hits[0]) === null;
    this.isComplete = isComplete;
    this.isPoor = nothingGood;
    this.isNewest = hits.length > 0 && hits[0].score === undefined;
    this.isAllGood = hits.length > 0 && isGood(levelOf(question, hits.at(-1)));
    this.#show();
  }

  get isEmpty() {
    return this.hits === undefined || this.hits.length === 0;
  }

  /** Newest contents and good hits go on for ever; hits without percentiles and poor ones once asked for. */
  get isEndless() {
    if (this.isEmpty || this.isRow) return false;
    return this.isOpen || this.isNewest || (this.isAllGood && !this.isUnrated);
  }

  showHead({ isMixed, isAsking }) {
    this.element.querySelector("h2").textContent = TITLES[this.name][isAsking ? 0 : 1];
    find(`#all-${this.name}`).hidden = !isMixed || this.hits.length < 2;
  }

  #show() {
    const { hits, numBest, isRow } = this;
    const best = this.isUnrated && this.isOpen ? hits : hits.slice(0, numBest);
    const rest = this.isOpen && !this.isUnrated && !isRow ? hits.slice(numBest) : [];
    this.shownHits = [...best, ...rest];
    this.element.hidden = hits.length === 0 || (best.length === 0 && isRow);
    this.list.classList.toggle("is-one-row", isRow);
    arrange(this.list, best.map((hit) => this.items.itemOf(hit)));
    arrange(this.rest, rest.map((hit) => this.items.itemOf(hit)));
    this.rest.hidden = rest.length === 0;
    this.#showDivider();
    settleRow(this.list);
  }

  /** The divider names what is behind it. Hits without percentiles have a button alone, beside texts the title's. */
  #showDivider() {
    const hasRest = this.hits.length > this.numBest || (this.isUnrated && !this.isComplete && !this.isMixed);
    const isNeeded = !this.isRow && hasRest && !(this.isUnrated && this.isOpen) && !this.isNewest;
    this.divider.hidden = !isNeeded;
    this.divider.classList.toggle("is-plain", this.isUnrated);
    const words = this.numBest === 0 ? `No ${this.name} match well` : "Less similar";
    this.divider.querySelector("h3").textContent = this.isUnrated ? "" : words;
    this.divider.querySelector("h3").hidden = this.isUnrated;
    const button = this.divider.querySelector("button");
    button.hidden = this.isOpen;
    button.textContent = this.isUnrated ? `Show more ${this.name}` : `Show less similar ${this.name}`;
  }
}

/** Let the keyboard skip the items that a one-row list does not show. */
function settleRow(list) {
  const isOneRow = list.classList.contains("is-one-row");
  for (const item of list.children) item.inert = isOneRow && item.offsetTop > list.firstElementChild.offsetTop;
}
