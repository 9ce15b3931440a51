// The page: what a person does becomes a question, and its answer becomes the results.

import { showBasket } from "./basket.js";
import { openDetails } from "./details.js";
import { find, plural } from "./elements.js";
import { Filters } from "./filters.js";
import { watchForKeys } from "./key.js";
import { watchIndex } from "./live.js";
import { watchForPictures } from "./picture.js";
import { NOTHING, addressOf, hasFilter, isAsking, questionOf, withExample } from "./question.js";
import { Results } from "./results.js";
import { Search } from "./search.js";
import { reasonOf } from "./service.js";
import { watchUploads } from "./upload.js";

const NEWS_EVERY_MS = 700;

const input = find("#text");
let question = questionOf(location.href);
let newsTimer = null;
let searchable = {}; // the newest snapshot from the live stream
let isSearchInTrouble = false; // the next answer hides the error of a failed search, but no other error

const actions = {
  open: (hit) => openDetails(hit, { like: searchLike, example: actions.example }),
  example: (hit, side) => change(withExample(question, hit, side)),
};
const results = new Results(actions);
const filters = new Filters((part) => change({ ...question, ...part }));
const search = new Search({ show: showAnswer, fail: showFailure, busy: showBusy });

/** Make this the question, show it and ask it. */
function change(next, { atOnce = true } = {}) {
  const isElsewhere = addressOf(next) !== addressOf(question);
  question = next;
  hideTrouble();
  showQuestion();
  if (isElsewhere) history.replaceState(null, "", addressOf(question));
  search.ask(question, { atOnce });
  if (atOnce) window.scrollTo({ top: 0 });
}

function searchLike(hit) {
  change({ ...NOTHING, modality: question.modality, source: question.source, owner_id: question.owner_id, more: [hit] });
}

function showQuestion() {
  if (input.value !== question.text) input.value = question.text;
  find("#picture-chip").hidden = question.picture === null;
  if (question.picture !== null) find("#picture-preview").src = question.picture.address;
  find("#clear").hidden = !isAsking(question);
  find("#search").classList.toggle("is-asking", isAsking(question));
  document.title = question.text.trim() === "" ? "cliptide" : `${question.text.trim()} · cliptide`;
  showBasket(question, {
    drop: (hit, side) => change(withExample(question, hit, side)),
    empty: () => change({ ...question, more: [], less: [] }),
  });
  filters.refresh(question);
}

function showAnswer(answered, { question: asked, isNews, took }) {
  if (isSearchInTrouble) hideTrouble();
  results.show(answered, { question: asked, isNews });
  const numbers = Object.entries(answered).map(([modality, { hits }]) => [modality, hits.length]).filter(([, number]) => number > 0);
  find("#nothing").hidden = numbers.length > 0;
  find("#nothing").textContent = isAsking(asked) || hasFilter(asked)
    ? "Nothing found. Try fewer filters or other words."
    : "Nothing here yet. Uploads appear as soon as they are searchable.";
  if (!isNews) find("#answer").textContent = isAsking(asked) && numbers.length > 0 ? `Answered in ${Math.max(1, Math.round(took))} ms` : "";
  fillScreen();
}

function showTrouble(words) {
  const trouble = find("#trouble");
  trouble.textContent = words;
  trouble.hidden = false;
}

function showFailure(error) {
  showTrouble(reasonOf(error));
  isSearchInTrouble = true;
}

function hideTrouble() {
  find("#trouble").hidden = true;
  isSearchInTrouble = false;
}

function showBusy(isBusy) {
  find("#results").classList.toggle("is-asking", isBusy);
}

/** Load another page if the end of the list is near. */
function fillScreen() {
  const { top } = find("#end").getBoundingClientRect();
  if (top < window.innerHeight + 600) search.more();
}

/** Ask the question again soon, if its answer is from an older index. A burst of uploads causes one request. */
function lookForNews() {
  newsTimer ??= setTimeout(() => {
    newsTimer = null;
    if (!search.covers(searchable)) search.repeat();
    filters.refresh(question);
  }, NEWS_EVERY_MS);
}

function clearSearch() {
  change({ ...question, text: "", picture: null, more: [], less: [] });
  input.focus();
}

function watchKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (find("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const isWriting = event.target.matches?.("input:not([type=checkbox], [type=radio]), textarea");
    if (event.key === "/" && !isWriting) {
      event.preventDefault();
      input.focus();
      input.select();
    } else if (event.key === "Escape" && isAsking(question)) {
      event.preventDefault();
      clearSearch();
    }
  });
}

function watchSearchBox() {
  input.addEventListener("input", () => change({ ...question, text: input.value }, { atOnce: false }));
  find("#search").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ ...question, text: input.value });
  });
  find("#clear").addEventListener("click", clearSearch);
  find("#remove-picture").addEventListener("click", () => { change({ ...question, picture: null }); input.focus(); });
  find("#all-texts").addEventListener("click", () => change({ ...question, modality: "text" }));
  find("#toggle-filters").addEventListener("click", (event) => {
    const isOpen = find("#filters").classList.toggle("is-open");
    event.currentTarget.setAttribute("aria-expanded", String(isOpen));
  });
}

watchForKeys();
watchSearchBox();
watchKeyboard();
watchForPictures({
  take: (picture) => change({ ...question, picture }),
  refuse: showTrouble,
});
watchUploads(lookForNews);
window.addEventListener("scroll", fillScreen, { passive: true });
window.addEventListener("popstate", () => change(questionOf(location.href)));
showQuestion();
search.ask(question, { atOnce: true });
watchIndex((state) => { searchable = state.snapshot; lookForNews(); });
