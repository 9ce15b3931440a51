// The page: what a person does becomes a question, and its answer becomes the results.

import { Details } from "./details/details.js";
import { openMenu } from "./details/menu.js";
import { Filters } from "./filters/filters.js";
import { watchFilterSheet } from "./filters/sheet.js";
import { openCrop } from "./picture/crop.js";
import { watchForPictures } from "./picture/picture.js";
import { cutPicture, readPicture } from "./picture/prepare.js";
import { Navigation } from "./question/navigation.js";
import { NOTHING, hasFilter, isAsking, withExample, withoutFilters } from "./question/question.js";
import { findHits, rememberHits } from "./question/known_hits.js";
import { rememberText } from "./question/recent.js";
import { restore } from "./question/restore.js";
import { ScrollMemory } from "./question/scroll_memory.js";
import { showQuestion } from "./question/shown_question.js";
import { watchSearchBox } from "./question/search_box.js";
import { sayAnswer, sayNothing } from "./results/answer_words.js";
import { collapseCopies } from "./results/copies.js";
import { isSomethingGood } from "./results/relevance.js";
import { Results } from "./results/results.js";
import { showStart } from "./results/start.js";
import { watchForKeys } from "./search/key.js";
import { watchIndex } from "./search/live.js";
import { News } from "./search/news.js";
import { Search } from "./search/search.js";
import { Trouble } from "./search/trouble.js";
import { watchUploads } from "./upload/upload.js";
import { showBusy } from "./ui/busy.js";
import { find } from "./ui/elements.js";
import { keepFocus } from "./ui/focus.js";
import { watchKeyboard } from "./ui/keyboard.js";

const input = find("#text");
let question = NOTHING;
let cleared = null; // the question that Escape has cleared, which a second Escape restores

const actions = {
  open: (hit) => { rememberText(question.text); scrolling.remember(); navigation.decide(question, hit.content_id); details.show(hit); },
  like: (hit) => decide({ ...NOTHING, modality: question.modality, where: question.where, ranges: question.ranges, more: [hit] }),
  example: (hit, side) => decide(withExample(question, hit, side)),
  menu: (hit) => openMenu(hit, actions),
  deleted: () => news.look(),
};
const navigation = new Navigation(goTo);
const results = new Results(actions, { wantMore: () => fillScreen() });
const scrolling = new ScrollMemory(() => ({ numLoaded: search.numLoaded, opened: results.openedSections }), () => navigation.isTyping);
const filters = new Filters((next) => decide(next));
const search = new Search({ show: showAnswer, fail: (error) => trouble.searchFailed(error), busy: showBusy });
const news = new News(search);
const trouble = new Trouble(() => (search.question === null ? goTo(location.href) : search.retry()));
const details = new Details({
  actions,
  hits: () => results.shownHits,
  turned: (hit) => navigation.turnTo(question, hit.content_id),
  closed: () => navigation.close(question),
});

/** Make this the question because a person has decided so: it gets an entry in the browser's history. */
function decide(next) {
  rememberText(next.text);
  scrolling.remember();
  scrolling.forget();
  navigation.decide(next);
  ask(next, { atOnce: true });
  window.scrollTo({ top: 0 });
}

/** Make this the question while a person types. */
function type(next) {
  scrolling.remember();
  scrolling.forget();
  navigation.type(next);
  ask(next, { atOnce: false });
}

function ask(next, { atOnce, numWanted = 0 }) {
  question = next;
  if (isAsking(next)) cleared = null;
  trouble.hideSaid();
  showQuestion(question, {
    drop: (hit, side) => decide(withExample(question, hit, side)),
    empty: () => decide({ ...question, more: [], less: [] }),
  });
  filters.refresh(question);
  return search.ask(question, { atOnce, numWanted });
}

/** Restore the question that an address names, and the details that are open there. */
async function goTo(address) {
  const { numLoaded } = scrolling.recall();
  await restore(address, question.picture, {
    ask: (restored) => { if (!ask(restored, { atOnce: true, numWanted: numLoaded })) scrolling.forget(); },
    open: (hit) => (hit === null ? details.hide() : details.show(hit)),
    say: (words) => trouble.say(words),
    fail: (error) => trouble.searchFailed(error),
  });
}

function showAnswer(answered, { question: asked, isNews, isPage, isComplete, took, unknownFields }) {
  trouble.searchAnswered();
  rememberHits(Object.values(answered).flatMap(({ hits }) => hits));
  keepFocus(find("#results"), () => {
    results.show(answered, { question: asked, isNews, isComplete });
    results.openSections(scrolling.wanted?.opened ?? []);
  });
  sayNothing(answered, asked, unknownFields);
  if (!isNews && !isPage) sayAnswer(answered, { question: asked, took });
  showStart(answered, { isShown: !isAsking(asked) && !hasFilter(asked), modality: asked.modality }, (text) => decide({ ...question, text }));
  collapseCopies(find("#pictures"));
  if (!isPage) filters.count(asked, { hasGood: isSomethingGood(asked, answered), isNews });
  scrolling.settle({ isComplete, more: () => search.more() });
  fillScreen();
}

/** Load another page if the end of the list is near, and what follows may still be wanted. */
function fillScreen() {
  const { top } = find("#end").getBoundingClientRect();
  if (results.isEndless && top < window.innerHeight + 600) search.more();
}

/** Clear the search; what was cleared comes back by a second Escape. */
function clearSearch() {
  const former = question;
  decide({ ...question, text: "", picture: null, more: [], less: [] });
  cleared = former;
  input.focus();
}

function escape() {
  if (isAsking(question)) clearSearch();
  else if (cleared !== null) decide(cleared);
  else return false;
  return true;
}

async function showUploaded(id) {
  const [hit] = await findHits([id]);
  if (hit) actions.open(hit);
}

async function cut(picture, part) {
  decide({ ...question, picture: part === null ? await readPicture(picture.original) : await cutPicture(picture, part) });
}

watchForKeys();
watchSearchBox({
  type: (text) => type({ ...question, text }),
  enter: (text) => decide({ ...question, text }),
  clear: clearSearch,
});
watchKeyboard({ escape });
watchForPictures({ take: (picture) => decide({ ...question, picture }), refuse: (words) => trouble.say(words) });
find("#remove-picture").addEventListener("click", () => { decide({ ...question, picture: null }); input.focus(); });
find("#crop-picture").addEventListener("click", () => openCrop(question.picture, (part) => cut(question.picture, part)));
find("#all-texts").addEventListener("click", () => decide({ ...question, modality: "text" }));
find("#all-pictures").addEventListener("click", () => decide({ ...question, modality: "image" }));
find("#clear-filters").addEventListener("click", () => decide(withoutFilters(question)));
watchFilterSheet();
watchUploads({ seen: () => news.look(), show: showUploaded });
window.addEventListener("scroll", fillScreen, { passive: true });
goTo(location.href);
watchIndex((state) => news.tell(state.snapshot));
