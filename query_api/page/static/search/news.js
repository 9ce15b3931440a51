// Ask the question again soon, if its answer is from an older index. A burst of uploads causes one request.

const EVERY_MS = 700;

export class News {
  #search;
  #searchable = {}; // the newest snapshot from the live stream
  #timer = null;

  constructor(search) {
    this.#search = search;
  }

  /** The index has this snapshot now. */
  tell(snapshot) {
    this.#searchable = snapshot;
    this.look();
  }

  look() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      if (!this.#search.covers(this.#searchable)) this.#search.repeat();
    }, EVERY_MS);
  }
}
