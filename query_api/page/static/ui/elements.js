// Build elements without markup, so that texts from events never become HTML.

/** Build an element. `text`, `on` (listeners) and attributes are given by name; null leaves an attribute out. */
export function build(tag, { text = null, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  if (text !== null) element.textContent = text;
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Build an icon: a line drawing on a 24 × 24 grid. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** Give an element these children in this order. Only children in a wrong position are moved. */
export function arrange(parent, wanted) {
  const isWanted = new Set(wanted);
  for (const item of [...parent.children]) if (!isWanted.has(item)) item.remove();
  wanted.forEach((item, position) => {
    if (parent.children[position] !== item) parent.insertBefore(item, parent.children[position] ?? null);
  });
}

export const find = (selector) => document.querySelector(selector);
