// Show answers. Elements are kept from answer to answer, so that nothing flickers.

import { isAsking } from "../question/question.js";
import { find } from "../ui/elements.js";
import { ItemKeeper } from "./items.js";
import { watchArrows } from "./arrow_keys.js";
import { isNothingGood, rankOfBest } from "./relevance.js";
import { Section } from "./section.js";

const MODALITIES = ["image", "text"]; // pictures come first if both answer equally well
const ROW = 6;

export class Results {
  /** `actions` are those of a hit: `open(hit)`, `example(hit, side)`, `menu(hit)`. */
  constructor(actions, { wantMore }) {
    const items = new ItemKeeper(actions);
    this.sections = {
      image: new Section(find("#pictures"), items, { name: "pictures", openRest: wantMore }),
      text: new Section(find("#texts"), items, { name: "texts", openRest: wantMore }),
    };
    this.items = items;
    this.order = MODALITIES;
    watchArrows(find("#results"));
  }

  /** Show an answer: `results` by modality. Beside pictures, only the best few texts are shown. */
  show(results, { question, isNews, isComplete }) {
    if (!isNews && this.question !== question) for (const section of Object.values(this.sections)) section.closeRest();
    this.question = question;
    const isMixed = MODALITIES.every((modality) => (results[modality]?.hits.length ?? 0) > 0);
    const nothingGood = isNothingGood(question, results);
    this.items.begin({ question, isNews });
    for (const modality of MODALITIES) {
      const hits = results[modality]?.hits ?? [];
      const most = isMixed && modality === "text" ? ROW : Infinity;
      this.sections[modality].show(hits, { question, nothingGood, isComplete, isMixed, most });
    }
    this.items.end();
    this.#arrange(results, { question, isMixed, nothingGood });
  }

  /** The hits in the order in which a person sees them. */
  get shownHits() {
    return this.order.flatMap((modality) => this.sections[modality].shownHits);
  }

  /** The modalities whose hits behind the divider are shown, because a person has asked for them. */
  get openedSections() {
    return MODALITIES.filter((modality) => this.sections[modality].isOpen);
  }

  openSections(modalities) {
    for (const modality of modalities) this.sections[modality]?.openRest();
  }

  /** Whether scrolling to the end should load more: never into what matches badly. */
  get isEndless() {
    return this.sections[this.order.at(-1)].isEndless;
  }

  #arrange(results, { question, isMixed, nothingGood }) {
    const rank = (modality) => rankOfBest(question, results[modality]?.hits ?? []);
    const isShown = (modality) => !this.sections[modality].isEmpty;
    this.order = [...MODALITIES].sort((a, b) => Number(isShown(a)) - Number(isShown(b)) || rank(a) - rank(b));
    if (MODALITIES.every(isShown)) this.order = [...MODALITIES].sort((a, b) => rank(a) - rank(b));
    const last = this.sections[this.order.at(-1)].element;
    if (last.nextElementSibling?.matches("section")) last.parentElement.insertBefore(last.nextElementSibling, last);
    for (const modality of MODALITIES) this.sections[modality].showHead({ isMixed, isAsking: isAsking(question) });
    find("#poor").hidden = !nothingGood;
  }
}
