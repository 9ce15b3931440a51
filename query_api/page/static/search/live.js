// The line that says what is searchable now. The stream is read here, because EventSource cannot send a key.

import { find } from "../ui/elements.js";
import { plural } from "../ui/words.js";
import { call } from "./service.js";

const SILENCE_MS = 6000; // the service sends an event at least each second
const RETRY_MS = [500, 1000, 2000, 5000, 10_000];
const LATE_SECONDS = 30; // no consumer is running, or it does not keep up

/** Watch the index while the page is visible. `changed(state)` is called first, and whenever something new is searchable. */
export function watchIndex(changed) {
  const watch = new IndexWatch(changed);
  document.addEventListener("visibilitychange", () => (document.hidden ? watch.stop() : watch.start()));
  watch.start();
  return watch;
}

class IndexWatch {
  constructor(changed) {
    this.changed = changed;
    this.covered = null;
    this.numFailed = 0;
  }

  start() {
    this.stop();
    this.calls = new AbortController();
    this.#listen(this.calls);
  }

  stop() {
    this.calls?.abort();
    clearTimeout(this.timer);
  }

  async #listen(calls) {
    try {
      const response = await call("/v1/live", { signal: calls.signal, headers: { Accept: "text/event-stream" } });
      for await (const data of eventsOf(response.body, () => this.#expectMore(calls))) {
        this.numFailed = 0;
        this.#take(JSON.parse(data));
      }
    } catch {
      // Whatever ended the stream: it is opened again below.
    }
    if (calls !== this.calls || document.hidden) return;
    this.#showAway();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), RETRY_MS[Math.min(this.numFailed++, RETRY_MS.length - 1)]);
  }

  #expectMore(calls) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => calls.abort(), SILENCE_MS);
  }

  #take(state) {
    const covered = JSON.stringify(Object.entries(state.snapshot).map(([shard, { next_offset }]) => [shard, next_offset]));
    const isNew = this.covered !== covered;
    this.#show(state, isNew && this.covered !== null);
    this.covered = covered;
    if (isNew) this.changed(state);
  }

  #show(state, isNew) {
    const line = find("#live");
    line.classList.add("is-live");
    line.classList.toggle("is-moving", isNew);
    line.classList.toggle("is-late", isLate(state));
    line.title = detailsOf(state);
    find("#live-text").textContent = wordsOf(state);
  }

  #showAway() {
    find("#live").classList.remove("is-live");
    find("#live-text").textContent = "Reconnecting";
  }
}

const isLate = ({ seconds_behind }) => seconds_behind === null || seconds_behind > LATE_SECONDS;

/** Say how many items there are, and whether uploads become searchable soon. */
function wordsOf(state) {
  const number = Object.values(state.num_contents).reduce((sum, one) => sum + one, 0);
  return `${plural(number, "item", "items")} · ${isLate(state) ? behindOf(state) : "live"}`;
}

const behindOf = ({ seconds_behind }) => (seconds_behind === null ? "not live yet" : `${lengthOf(seconds_behind)} behind`);

/** Say how far behind the index is, and what each shard covers. */
function detailsOf(state) {
  const shards = Object.entries(state.snapshot)
    .map(([shard, { generation, next_offset }]) => `${shard}: generation ${generation}, up to offset ${next_offset}`);
  return [behindOf(state), ...shards].join("\n");
}

function lengthOf(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

/** Yield the data of each server-sent event. `heard` is called for every piece that arrives. */
async function* eventsOf(stream, heard) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    heard();
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
      if (data.length > 0) yield data.join("\n");
    }
  }
}
