// The browser's history. A decision is an entry of its own; what is typed replaces the newest entry.

import { addressOf } from "./address.js";

export class Navigation {
  /** `go(address)` is called when a person goes back or forward. */
  constructor(go) {
    this.decided = here(); // the address of the newest entry that is not mere typing
    this.isClosing = false; // details are closed, and the browser is on its way back
    this.afterClosing = null;
    window.addEventListener("popstate", () => {
      this.decided = here();
      if (this.isClosing) this.#endClosing();
      else go(location.href);
    });
  }

  /** Whether the newest entry shows what is typed, and not yet what was decided. */
  get isTyping() {
    return here() !== this.decided;
  }

  /** Something was typed: the address follows, without an entry for each letter. */
  type(question) {
    this.#onceClosed(() => history.replaceState(history.state, "", addressOf(question)));
  }

  /** A person has decided: Enter, an example, a filter, or details. */
  decide(question, opened = null) {
    this.#onceClosed(() => {
      this.#settleTyping();
      const address = addressOf(question, opened);
      if (address !== this.decided) history.pushState({ hasOpened: opened !== null }, "", address);
      this.decided = address;
    });
  }

  /** Another content is shown in the details: that is no new entry. */
  turnTo(question, opened) {
    this.#onceClosed(() => {
      this.decided = addressOf(question, opened);
      history.replaceState(history.state, "", this.decided);
    });
  }

  /** The details are closed. Going back is the same as closing them, if opening them made the entry. */
  close(question) {
    if (!history.state?.hasOpened) {
      this.turnTo(question, null);
    } else if (!this.isClosing) {
      this.isClosing = true;
      history.back();
    }
  }

  /** What was typed becomes an entry, and the entry that it replaced gets its address back. */
  #settleTyping() {
    const typed = here();
    if (typed === this.decided) return;
    history.replaceState(history.state, "", this.decided);
    history.pushState({ hasOpened: false }, "", typed);
    this.decided = typed;
  }

  /** Going back takes the browser a moment. What is done meanwhile comes after it, and the latest counts. */
  #onceClosed(act) {
    if (this.isClosing) this.afterClosing = act;
    else act();
  }

  #endClosing() {
    const act = this.afterClosing;
    this.isClosing = false;
    this.afterClosing = null;
    act?.();
  }
}

const here = () => location.pathname + location.search;
