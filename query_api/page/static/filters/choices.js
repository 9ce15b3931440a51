// The elements of filters: radio buttons, values with counts, and ranges.

import { arrange, build } from "../ui/elements.js";
import { spoken, valueName } from "../ui/words.js";

const NUM_FIRST = 6;
const MAX_OPEN = 8; // values; a field with more is collapsed at first

export class Choices {
  /** `widened()` is called when a person asks for all values of a field. */
  constructor(widened) {
    this.widened = widened;
    this.elements = new Map(); // id or title → element
    this.isWhole = {};
    this.onceChosen = new Map(); // field → values that were chosen: they stay, so that nothing vanishes under a finger
  }

  /** The fields of which a person has chosen a value. */
  get fieldsOnceChosen() {
    return [...this.onceChosen.keys()];
  }

  /** The elements are shown anew. Those that are not shown again are forgotten. */
  begin() {
    this.former = this.elements;
    this.elements = new Map();
  }

  showRadios(title, values, chosen, choose) {
    const choices = values.map(([value, name, count]) =>
      this.#showChoice({ id: `show-${value || "all"}`, type: "radio", name, count, isChosen: value === chosen, choose: () => choose(value) }));
    const group = this.#keep(title, () => build("fieldset", {}, build("legend", { text: title })));
    arrange(group, [group.querySelector("legend"), ...choices]);
    return group;
  }

  /** Show values by count, with those that are chosen; null if there are none. */
  showValues(field, title, counted, chosen, choose) {
    const known = counted.map(({ value, count }) => ({ value: String(value), name: valueName(value), count })).filter(({ value }) => value !== "");
    const gone = this.#remember(field, chosen).filter((value) => !known.some((other) => other.value === value)).map((value) => ({ value, name: value, count: 0 }));
    const values = [...gone, ...known];
    if (values.length === 0) return null;
    const isShown = ({ value }, position) => this.isWhole[field] || position < NUM_FIRST || chosen.includes(value);
    const choices = values.filter(isShown).map(({ value, name, count }) =>
      this.#showChoice({
        id: `${field}-${value}`, type: "checkbox", name, count, isChosen: chosen.includes(value),
        choose: (isChosen) => choose(isChosen ? [...chosen, value] : chosen.filter((other) => other !== value)),
      }));
    if (values.length > choices.length) choices.push(this.#showMore(field, values.length - choices.length));
    return this.#showGroup(field, title, choices, values.length <= MAX_OPEN || chosen.length > 0);
  }

  /** Show two bounds. The data's own least and greatest value stand in the empty fields. */
  showRange(field, title, range, chosen, choose) {
    const isTime = field === "occurred_at";
    if (range !== null && range.min === range.max && chosen.from === "" && chosen.to === "") return null;
    const inputs = ["from", "to"].map((bound) => this.#keep(`${field}-${bound}`, () => buildBound(`${field}-${bound}`, bound, title, isTime)));
    const read = () => Object.fromEntries(["from", "to"].map((bound, position) => [bound, inputs[position].querySelector("input").value]));
    inputs.forEach((label, position) => {
      const input = label.querySelector("input");
      const bound = range?.[position === 0 ? "min" : "max"] ?? "";
      if (document.activeElement !== input) input.value = chosen[position === 0 ? "from" : "to"];
      if (isTime) [input.min, input.max] = range === null ? ["", ""] : [range.min.slice(0, 10), ""];
      else input.placeholder = bound === "" ? "" : valueName(bound);
      input.onchange = () => choose(read());
    });
    const pair = this.#keep(`${field}-range`, () => build("div", { class: "range" }));
    arrange(pair, inputs);
    return this.#showGroup(field, title, [pair], !isTime || chosen.from !== "" || chosen.to !== "");
  }

  #remember(field, chosen) {
    const values = new Set([...(this.onceChosen.get(field) ?? []), ...chosen]);
    if (values.size > 0) this.onceChosen.set(field, values);
    return [...values];
  }

  #showMore(field, number) {
    const id = `whole-${field}`;
    const button = this.#keep(id, () => build("button", { type: "button", class: "text-button", id }));
    button.textContent = `Show ${spoken(number)} more`;
    button.onclick = () => { this.isWhole[field] = true; this.widened(); };
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

  #showGroup(field, title, children, isOpen) {
    const group = this.#keep(`group ${field}`, () =>
      build("details", { class: "facet", open: isOpen }, build("summary", { text: title }), build("div", { role: "group", "aria-label": title })));
    arrange(group.querySelector("div"), children);
    return group;
  }

  #keep(id, make) {
    const element = this.elements.get(id) ?? this.former.get(id) ?? make();
    this.elements.set(id, element);
    return element;
  }
}

function buildChoice({ id, type, name }) {
  const input = build("input", { id, type, name: type === "radio" ? "show" : null });
  return build("label", {}, input, build("span", { text: name, title: name }), build("small"));
}

function buildBound(id, bound, title, isTime) {
  const input = build("input", { id, type: isTime ? "date" : "number", step: isTime ? null : "any", "aria-label": `${title} ${bound}` });
  return build("label", { class: "bound" }, build("span", { text: bound === "from" ? "From" : "To", "aria-hidden": "true" }), input);
}
