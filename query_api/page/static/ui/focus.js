// A later answer must not move the focus: a person may be on the way through the hits with the keyboard.

/** Change an area. What has the focus in it keeps it, also if it is moved; if it goes, its neighbour has it. */
export function keepFocus(area, change) {
  const focused = area.contains(document.activeElement) ? document.activeElement : null;
  const item = focused?.closest("li");
  const list = item?.parentElement;
  const position = list ? [...list.children].indexOf(item) : -1;
  change();
  if (focused === null) return;
  if (isReachable(focused)) {
    if (document.activeElement !== focused) focused.focus({ preventScroll: true });
  } else if (list) {
    nearest(list, position)?.querySelector(".open")?.focus({ preventScroll: true });
  }
}

const isReachable = (element) => element.isConnected && !element.closest("[hidden], [inert]");

/** Return the item at a position of a list, or the last one before it that can have the focus. */
const nearest = (list, position) => [...list.children].slice(0, position + 1).filter(isReachable).at(-1);
