// Each list of hits is one stop of the Tab key; inside it, the arrow keys move.

const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

/** Watch the lists of hits inside an element. */
export function watchArrows(main) {
  main.addEventListener("keydown", (event) => {
    if (!KEYS.includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    const open = event.target.closest?.(".open");
    const next = open && neighbour(main, open, event.key);
    if (!next) return;
    event.preventDefault();
    makeStop(next);
    next.focus();
  });
  main.addEventListener("focusin", (event) => { if (event.target.matches(".open")) makeStop(event.target); });
  new MutationObserver(() => settleStops(main)).observe(main, { childList: true, subtree: true });
}

const openIn = (list) => [...list.children].filter((item) => !item.inert).map((item) => item.querySelector(".open"));

/** Make an item the one that Tab reaches in its list. */
function makeStop(open) {
  for (const other of open.closest("ol").querySelectorAll('.open[tabindex="0"]')) other.tabIndex = -1;
  open.tabIndex = 0;
}

/** Let each list have one stop: the former one if it is still there, else the first item. */
function settleStops(main) {
  for (const list of main.querySelectorAll("ol.best, ol.rest")) {
    const items = openIn(list);
    const stops = [...list.querySelectorAll('.open[tabindex="0"]')];
    const stop = stops.find((open) => items.includes(open)) ?? items[0];
    for (const open of stops) if (open !== stop) open.tabIndex = -1;
    if (stop) stop.tabIndex = 0;
  }
}

/** Return the hit that a key leads to; the lists follow each other as one. */
function neighbour(main, open, key) {
  const all = [...main.querySelectorAll("ol.best, ol.rest")].flatMap(openIn).filter((one) => one.offsetParent !== null);
  const position = all.indexOf(open);
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  if (key === "ArrowLeft") return all[position - 1];
  if (key === "ArrowRight") return all[position + 1];
  return verticalNeighbour(key === "ArrowDown" ? all.slice(position + 1) : all.slice(0, position).reverse(), open);
}

/** Return the hit of the next row that lies nearest to this one's middle. */
function verticalNeighbour(others, open) {
  const { left, width, top } = open.getBoundingClientRect();
  const middle = left + width / 2;
  let best = null;
  let row = null;
  for (const other of others) {
    const place = other.getBoundingClientRect();
    if (Math.abs(place.top - top) < 4) continue;
    row ??= place.top;
    if (Math.abs(place.top - row) >= 4) break;
    const distance = Math.abs(place.left + place.width / 2 - middle);
    if (best === null || distance < best.distance) best = { other, distance };
  }
  return best?.other ?? null;
}
