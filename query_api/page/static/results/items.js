// The elements of hits, kept from answer to answer by what they show.

import { sideOf } from "../question/question.js";
import { buildHit, updateHit } from "./cards.js";
import { levelOf, shareOf } from "./relevance.js";

export class ItemKeeper {
  constructor(actions) {
    this.actions = actions;
    this.items = new Map(); // content id and thumbnail → element
  }

  /** An answer begins. Items that it does not use are forgotten at its end. */
  begin({ question, isNews }) {
    this.question = question;
    this.isNews = isNews;
    this.former = this.items;
    this.items = new Map();
  }

  end() {
    this.former = this.items;
  }

  /** Return the element of a hit, as this answer shows it. */
  itemOf(hit) {
    const key = `${hit.modality} ${hit.content_id} ${hit.thumbnail_url ?? hit.occurred_at}`;
    const item = this.items.get(key) ?? this.former.get(key) ?? this.#build(hit);
    const { question } = this;
    updateHit(item, hit, { level: levelOf(question, hit), share: shareOf(question, hit), side: sideOf(question, hit) });
    this.items.set(key, item);
    return item;
  }

  #build(hit) {
    const item = buildHit(hit, this.actions);
    item.classList.toggle("is-new", this.isNews);
    return item;
  }
}
