// Filters with counts: one modality or all, any number of sources and of owners.
// Elements are kept when counts change, so that a click ends on the element on which it began.

import { arrange, build, find, spoken } from "./elements.js";
import { ask } from "./service.js";

const NAMES = { image: "Pictures", text: "Texts" };
const FIELDS = [["source", "Source"], ["owner_id", "Owner"]];
const NUM_FIRST = 8;
const RECOUNT_MS = 2000;

export class Filters {
  /** `change(part)` is called with what a person has chosen; the page puts it into the question. */
  constructor(change) {
    this.change = change;
    this.counts = null;
    this.isWhole = {};
    this.elements = new Map(); // id or title → element
    this.former = this.elements;
    this.timer = null;
    this.countedAt = -Infinity;
  }

  /** Show what the question has chosen. New counts follow, at most every two seconds. */
  refresh(question) {
    this.question = question;
    if (this.counts !== null) this.#show();
    this.timer ??= setTimeout(() => this.#count(), Math.max(0, this.countedAt + RECOUNT_MS - performance.now()));
  }

  async #count() {
    this.countedAt = performance.now();
    this.timer = null;
    try {
      this.counts = (await ask("/v1/counts", { max_values: 200 })).fields;
      this.#show();
    } catch {
      // The search shows the error. Counts are asked for again at the next change.
    }
  }

  #show() {
    const focused = document.activeElement?.closest("#filters [id]")?.id;
    this.former = this.elements;
    this.elements = new Map();
    const fieldsets = FIELDS.map(([field, title]) => this.#showValues(field, title));
    arrange(find("#filters"), [this.#showModalities(), ...fieldsets.filter(Boolean)]);
    if (focused) document.getElementById(focused)?.focus();
  }

  #showModalities() {
    const counts = Object.fromEntries(this.counts.modality.values.map(({ value, count }) => [value, count]));
    const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const choices = [[null, "Everything", all], ...Object.entries(NAMES).map(([value, name]) => [value, name, counts[value] ?? 0])];
    return this.#showFieldset("Show", choices.map(([value, name, count]) =>
      this.#showChoice({
        id: `show-${value ?? "all"}`, type: "radio", name, count,
        isChosen: this.question.modality === value,
        choose: () => this.change({ modality: value }),
      })));
  }

  #showValues(field, title) {
    const chosen = this.question[field];
    const counted = this.counts[field].values.filter(({ value }) => value !== "");
    const gone = chosen.filter((value) => !counted.some((other) => other.value === value));
    const values = [...gone.map((value) => ({ value, count: 0 })), ...counted];
    if (values.length === 0) return null;
    const isShown = ({ value }, position) => this.isWhole[field] || position < NUM_FIRST || chosen.includes(value);
    const choices = values.filter(isShown).map(({ value, count }) =>
      this.#showChoice({
        id: `${field}-${value}`, type: "checkbox", name: value, count,
        isChosen: chosen.includes(value),
        choose: (isChosen) => this.change({ [field]: isChosen ? [...chosen, value] : chosen.filter((other) => other !== value) }),
      }));
    if (values.length > choices.length) choices.push(this.#showMore(field, values.length - choices.length));
    return this.#showFieldset(title, choices);
  }

  #showMore(field, number) {
    const id = `whole-${field}`;
    const button = this.#keep(id, () => build("button", { type: "button", class: "text-button", id }));
    button.textContent = `Show ${spoken(number)} more`;
    button.onclick = () => { this.isWhole[field] = true; this.#show(); };
    return button;
  }

  #showChoice({ id, type, name, count, isChosen, choose }) {
    const label = this.#keep(id, () => buildChoice({ id, type, name }));
    const input = label.querySelector("input");
    input.checked = isChosen;
    input.onchange = () => choose(input.checked);
    label.querySelector("small").textContent = spoken(count);
    return label;
  }

  #showFieldset(title, choices) {
    const fieldset = this.#keep(title, () => build("fieldset", {}, build("legend", { text: title })));
    arrange(fieldset, [fieldset.querySelector("legend"), ...choices]);
    return fieldset;
  }

  #keep(id, make) {
    const element = this.former.get(id) ?? make();
    this.elements.set(id, element);
    return element;
  }
}

function buildChoice({ id, type, name }) {
  const input = build("input", { id, type, name: type === "radio" ? "show" : null });
  return build("label", {}, input, build("span", { text: name, title: name }), build("small"));
}
