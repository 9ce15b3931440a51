// Filters with counts: one modality or all, any of the sources, any of the owners.

import { build, find, spoken } from "./elements.js";
import { ask } from "./service.js";

const NAMES = { image: "Pictures", text: "Texts" };
const FIELDS = [["source", "Source"], ["owner_id", "Owner"]];
const NUM_FIRST = 8;
const RECOUNT_MS = 2000;

export class Filters {
  /** `change(part)` is called with what a person chose, to be put into the question. */
  constructor(change) {
    this.change = change;
    this.counts = null;
    this.isWhole = {};
    this.timer = null;
    this.countedAt = -Infinity;
  }

  /** Show the question's choices; the counts follow, at most every few seconds. */
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
      // the search says what is wrong; counts come with the next change
    }
  }

  #show() {
    const focused = document.activeElement?.closest("#filters [id]")?.id;
    const fieldsets = FIELDS.map(([field, title]) => this.#buildValues(field, title));
    find("#filters").replaceChildren(this.#buildModalities(), ...fieldsets.filter(Boolean));
    if (focused) document.getElementById(focused)?.focus();
  }

  #buildModalities() {
    const counts = Object.fromEntries(this.counts.modality.values.map(({ value, count }) => [value, count]));
    const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
    const choices = [[null, "Everything", all], ...Object.entries(NAMES).map(([value, name]) => [value, name, counts[value] ?? 0])];
    return fieldset("Show", choices.map(([value, name, count]) =>
      choice({
        id: `show-${value ?? "all"}`, type: "radio", name, count,
        isChosen: this.question.modality === value,
        choose: () => this.change({ modality: value }),
      })));
  }

  #buildValues(field, title) {
    const chosen = this.question[field];
    const counted = this.counts[field].values.filter(({ value }) => value !== "");
    const gone = chosen.filter((value) => !counted.some((other) => other.value === value));
    const values = [...gone.map((value) => ({ value, count: 0 })), ...counted];
    if (values.length === 0) return null;
    const isShown = ({ value }, place) => this.isWhole[field] || place < NUM_FIRST || chosen.includes(value);
    const choices = values.filter(isShown).map(({ value, count }) =>
      choice({
        id: `${field}-${value}`, type: "checkbox", name: value, count,
        isChosen: chosen.includes(value),
        choose: (isChosen) => this.change({ [field]: isChosen ? [...chosen, value] : chosen.filter((other) => other !== value) }),
      }));
    if (values.length > choices.length) choices.push(this.#buildMore(field, values.length - choices.length));
    return fieldset(title, choices);
  }

  #buildMore(field, number) {
    const show = () => { this.isWhole[field] = true; this.#show(); };
    return build("button", { type: "button", class: "text-button", id: `whole-${field}`, text: `${spoken(number)} more`, on: { click: show } });
  }
}

const fieldset = (title, choices) => build("fieldset", {}, build("legend", { text: title }), ...choices);

function choice({ id, type, name, count, isChosen, choose }) {
  const input = build("input", { id, type, name: type === "radio" ? "show" : null, on: { change: (event) => choose(event.target.checked) } });
  input.checked = isChosen;
  return build("label", {}, input, build("span", { text: name, title: name }), build("small", { text: spoken(count) }));
}
