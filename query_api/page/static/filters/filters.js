// Filters out of the data: the modality, then each field with its values or its range, with counts.
// Elements are kept when counts change, so that a click ends on the element on which it began.

import { NOTHING, hasFilter, isAsking, numFilters, withRange, withValues, withoutFilters } from "../question/question.js";
import { arrange, find } from "../ui/elements.js";
import { spoken } from "../ui/words.js";
import { Choices } from "./choices.js";
import { readFacets } from "./facets.js";
import { fieldTitle, isFilter, orderOf, sumOfCounts } from "./fields.js";

const RECOUNT_MS = 500; // after another question
const NEWS_MS = 5000; // after a change of the index: a page that is only open should cost little

export class Filters {
  /** `change(question)` is called with the question that a person has narrowed. */
  constructor(change) {
    this.change = change;
    this.choices = new Choices(() => this.#show());
    this.facets = null;
    this.question = NOTHING;
    this.timer = null;
    this.countedAt = -Infinity;
    this.number = 0; // of the newest counting; others are dropped
  }

  /** Show what the question has chosen. */
  refresh(question) {
    this.question = question;
    if (this.facets !== null) this.#show();
    else this.#showButton();
  }

  /** An answer is there: counts follow, soon for another question and later for a change of the index. */
  count(question, { hasGood, isNews }) {
    this.refresh(question);
    this.hasGood = hasGood;
    const wait = Math.max(0, this.countedAt + (isNews ? NEWS_MS : RECOUNT_MS) - performance.now());
    if (isNews && this.timer !== null) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#count(), wait);
  }

  async #count() {
    this.countedAt = performance.now();
    this.timer = null;
    const number = ++this.number;
    try {
      const facets = await readFacets(this.question, this.hasGood);
      if (number !== this.number) return;
      this.facets = facets;
      this.#show();
    } catch {
      // The search shows the error. Counts are asked for again at the next answer.
    }
  }

  #show() {
    const focused = document.activeElement?.closest("#filters [id]")?.id;
    const { fields } = this.facets;
    this.choices.begin();
    const { where, ranges } = this.question;
    const names = [...new Set([fields, where, ranges].flatMap(Object.keys).concat(this.choices.fieldsOnceChosen))];
    const shown = names.filter(isFilter).sort(orderOf).map((field) => this.#showField(field, fields[field]));
    arrange(find("#filter-list"), [this.#showModalities(fields.modality), ...shown.filter(Boolean)]);
    this.#showButton();
    this.#showNote();
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus();
  }

  /** Say what is counted, if that is not everything. */
  #showNote() {
    const note = find("#filter-note");
    note.hidden = this.facets.is_complete;
    note.textContent = `Values of further fields are counted in ${isAsking(this.question) ? "the best" : "the newest"} ${spoken(this.facets.num_counted)} contents.`;
  }

  #showButton() {
    const number = numFilters(this.question);
    find("#toggle-filters").textContent = number === 0 ? "Filters" : `Filters (${number})`;
    find("#reset-filters").hidden = !hasFilter(this.question) && this.question.modality === null;
    find("#reset-filters").onclick = () => this.change(withoutFilters(this.question));
  }

  #showModalities(facet) {
    const counts = Object.fromEntries((facet?.values ?? []).map(({ value, count }) => [value, count]));
    const values = [["", "Everything", sumOfCounts(counts)], ["image", "Pictures", counts.image ?? 0], ["text", "Texts", counts.text ?? 0]];
    return this.choices.showRadios("Show", values, this.question.modality ?? "", (value) =>
      this.change({ ...this.question, modality: value === "" ? null : value }));
  }

  #showField(field, facet) {
    const title = fieldTitle(field);
    if (facet?.range || (facet === undefined && this.question.ranges[field])) {
      return this.choices.showRange(field, title, facet?.range ?? null, this.question.ranges[field] ?? { from: "", to: "" }, (range) =>
        this.change(withRange(this.question, field, range)));
    }
    const chosen = this.question.where[field] ?? [];
    return this.choices.showValues(field, title, facet?.values ?? [], chosen, (values) => this.change(withValues(this.question, field, values)));
  }
}

