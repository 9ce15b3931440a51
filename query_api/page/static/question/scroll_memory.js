// Where a person has scrolled to, kept with each entry of the browser's history. Back, forward and reload return there.

const PAUSE_MS = 300; // browsers limit how often the state of an entry may be replaced
const HEADER = 80; // pixels that the header covers
const TOP = Object.freeze({ y: 0, id: null, offset: 0, numLoaded: 0, opened: Object.freeze([]) });

export class ScrollMemory {
  /**
   * `look()` returns what is shown: `{numLoaded, opened}`, the hits of a modality and the sections shown whole.
   * While `isTyping()`, the entry will get its former address back, so its former position stays too.
   */
  constructor(look, isTyping) {
    this.isTyping = isTyping;
    this.look = look;
    this.wanted = null; // where to scroll once an answer is there
    this.timer = null;
    history.scrollRestoration = "manual"; // the browser would scroll before the answer is there
    window.addEventListener("scroll", () => this.#rememberSoon(), { passive: true });
    window.addEventListener("pagehide", () => this.remember());
    for (const name of ["wheel", "touchmove"]) window.addEventListener(name, () => { this.wanted = null; }, { passive: true });
  }

  /** Keep the position in the present entry of the history. */
  remember() {
    clearTimeout(this.timer);
    if (this.wanted !== null || this.isTyping()) return;
    try {
      history.replaceState({ ...history.state, scroll: { ...positionOf(), ...this.look(), address: location.search } }, "");
    } catch {
      // The browser allows no more changes for a while. The former position stays.
    }
  }

  /** Return what the present entry of the history has kept. The next answer is scrolled there. */
  recall() {
    clearTimeout(this.timer);
    const kept = history.state?.scroll;
    this.wanted = kept?.address === location.search ? kept : TOP;
    return this.wanted;
  }

  /** Stay here: no answer will come, or the person has asked something else. */
  forget() {
    this.wanted = null;
  }

  /** An answer is shown: scroll to the hit that was on top. `more()` loads further hits if it is not there yet. */
  settle({ isComplete, more }) {
    if (this.wanted === null) return;
    const { id, offset, y, numLoaded } = this.wanted;
    const item = id === null ? null : document.querySelector(`main .hit[data-id="${CSS.escape(id)}"]`);
    if (item === null && !isComplete && this.look().numLoaded < numLoaded) return more();
    const top = item === null ? y : window.scrollY + item.getBoundingClientRect().top - offset;
    window.scrollTo({ top, behavior: "instant" });
    this.wanted = null;
  }

  #rememberSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.remember(), PAUSE_MS);
  }
}

/** Return the position as the hit on top and its distance from the window's edge: hits above it may become more. */
function positionOf() {
  const y = window.scrollY;
  if (y < 1) return { y: 0, id: null, offset: 0 };
  const item = [...document.querySelectorAll("main .hit")].find((one) => one.getBoundingClientRect().bottom > HEADER);
  return { y, id: item?.dataset.id ?? null, offset: item?.getBoundingClientRect().top ?? 0 };
}
