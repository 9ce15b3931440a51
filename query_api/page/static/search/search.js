// Search while a person types: requests are debounced, and an older answer never replaces a newer one.

import { PAGE_SIZE, nextRequestOf, requestOf } from "../question/requests.js";
import { ask } from "./service.js";

const PAUSE_MS = 180; // one search for each pause in typing
const MAX_REPEATED = 288; // a repeated search looks for changes among the best hits; the hits loaded after these stay
const MAX_K = 1000;

export class Search {
  /** `show(results, {question, took, isNews, isPage, isComplete, unknownFields})` gets every answer that is still wanted, `fail(error)` every failure. */
  constructor({ show, fail, busy }) {
    this.show = show;
    this.fail = fail;
    this.busy = busy;
    this.question = null;
    this.results = {};
    this.cursor = null;
    this.snapshot = {}; // what the newest answer to a first page covers
    this.number = 0; // of the newest request; answers to other requests are dropped
    this.timer = null;
    this.numWanted = 0; // hits of each modality that the question's first page should hold
    this.started = null; // the key of the question that was asked last
    this.calls = new AbortController();
  }

  /**
   * Ask a new question, at once or when the person stops typing. `numWanted` hits of each modality, if a page holds
   * fewer. What is asked already is not asked twice; return whether this is.
   */
  ask(question, { atOnce = false, numWanted = 0 } = {}) {
    clearTimeout(this.timer);
    this.question = question;
    if (this.started === keyOf(question)) return false;
    this.numWanted = numWanted;
    this.timer = setTimeout(() => this.#start(), atOnce ? 0 : PAUSE_MS);
    return true;
  }

  /** Ask the question again that has failed. */
  retry() {
    clearTimeout(this.timer);
    this.#start();
  }

  get numLoaded() {
    return Math.max(0, ...Object.values(this.results).map(({ hits }) => hits.length));
  }

  get isIdle() {
    return this.running === null || this.running === undefined;
  }

  /** Whether the answer that is shown covers a snapshot's offsets. */
  covers(snapshot) {
    return Object.entries(snapshot).every(([shard, { next_offset }]) => this.snapshot[shard]?.next_offset >= next_offset);
  }

  /** Ask the same question again, because the index has changed. A running request is finished first. */
  repeat() {
    this.isStale = !this.isIdle;
    if (this.isStale || this.question === null) return;
    const k = Math.min(MAX_REPEATED, Math.max(PAGE_SIZE, this.numLoaded));
    this.#run(requestOf(this.question, k), { isNews: true });
  }

  /** Load the next page, if there are more hits. */
  more() {
    if (!this.isIdle || this.isComplete) return;
    if (this.cursor !== null) this.#run(nextRequestOf(this.question, this.cursor), { isPage: true });
    else this.#runWhole();
  }

  #start() {
    this.started = keyOf(this.question);
    this.calls.abort();
    this.calls = new AbortController();
    this.running = null;
    this.isStale = false;
    this.#run(requestOf(this.question, Math.min(MAX_REPEATED, Math.max(PAGE_SIZE, this.numWanted))), {});
  }

  /** Ask again for all hits that are loaded, and one page more. */
  #runWhole() {
    this.#run(requestOf(this.question, Math.min(MAX_K, this.numLoaded + PAGE_SIZE)), {});
  }

  async #run(request, { isPage = false, isNews = false }) {
    const number = ++this.number;
    const question = this.question;
    const began = performance.now();
    this.running = number;
    this.busy(!isNews);
    try {
      const answer = await ask(request.path, pagedBody(request), this.calls.signal);
      if (number !== this.number) return;
      this.running = null;
      this.#take(answer, { k: request.body.k, isPage, isNews });
      const unknownFields = answer.unknown_fields ?? []; // fields of the filters that no content has
      this.show(this.results, { question, isNews, isPage, isComplete: this.isComplete, took: performance.now() - began, unknownFields });
    } catch (error) {
      if (number !== this.number || error.name === "AbortError") return;
      this.running = null;
      this.started = null;
      if (isPage && error.status === 410) this.#runWhole(); // the first page's generation is deleted
      else this.fail(error);
    } finally {
      if (number === this.number) this.busy(false);
    }
    if (this.isStale && this.isIdle) this.repeat();
  }

  #take(answer, { k, isPage, isNews }) {
    const former = this.results;
    if (!isPage) this.snapshot = answer.snapshot;
    if (isPage) {
      this.results = mergeEach(former, answer.results, (before, hits) => [...before, ...without(hits, before)]);
    } else if (isNews && this.numLoaded > k) {
      this.results = mergeEach(former, answer.results, (before, hits) => [...hits, ...(hits.length < k ? [] : behind(before, hits))]);
      return; // the next page is the same as before
    } else {
      this.results = answer.results;
    }
    this.cursor = answer.next_cursor ?? null;
    const isShort = Object.values(answer.results).every(({ hits }) => hits.length < k || hits.length >= MAX_K);
    this.isComplete = this.cursor === null && (answer.next_cursor === null || isPage || isShort);
  }
}

/** Return what makes two questions the same to the service. */
const keyOf = (question) => JSON.stringify([requestOf({ ...question, picture: null }, PAGE_SIZE), question.picture?.key]);

/** Merge the hits of each modality in the answer. A modality without more hits stays as it is. */
function mergeEach(former, answered, merge) {
  const merged = Object.entries(answered).map(([modality, { hits }]) => [modality, { hits: merge(former[modality]?.hits ?? [], hits) }]);
  return { ...former, ...Object.fromEntries(merged) };
}

const idsOf = (hits) => new Set(hits.map(({ content_id }) => content_id));

function without(hits, others) {
  const known = idsOf(others);
  return hits.filter(({ content_id }) => !known.has(content_id));
}

/** Return the earlier hits that come after the newest ones: those after the last hit that both lists have. */
function behind(before, newest) {
  const known = idsOf(newest);
  return without(before.slice(before.findLastIndex(({ content_id }) => known.has(content_id)) + 1), newest);
}

const pagedBody = ({ path, body }) => (path === "/v1/search" && body.cursor === undefined ? { ...body, paged: true } : body);
