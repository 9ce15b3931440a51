// Show answers. Elements are kept from answer to answer, so that nothing flickers.

import { buildHit, updateHit } from "./cards.js";
import { arrange, find } from "./elements.js";
import { isAsking, sideOf } from "./question.js";

const NUM_TEXTS_BESIDE_PICTURES = 6;

export class Results {
  constructor(actions) {
    this.actions = actions;
    this.items = new Map(); // content id and thumbnail → element
    this.sections = {
      text: { section: find("#texts"), list: find("#texts ol") },
      image: { section: find("#pictures"), list: find("#pictures ol") },
    };
    new ResizeObserver(() => settleRow(this.sections.text.list)).observe(this.sections.text.list);
  }

  /** Show an answer: `results` by modality. Beside pictures, only the best few texts are shown. */
  show(results, { question, isNews }) {
    const isMixed = question.modality === null && (results.image?.hits.length ?? 0) > 0;
    const kept = new Map();
    for (const modality of ["text", "image"]) {
      const hits = results[modality]?.hits ?? [];
      const shown = modality === "text" && isMixed ? hits.slice(0, NUM_TEXTS_BESIDE_PICTURES) : hits;
      this.#fill(this.sections[modality], shown, question, { kept, isNews });
    }
    this.items = kept;
    this.sections.text.list.classList.toggle("is-one-row", isMixed);
    find("#all-texts").hidden = !isMixed || (results.text?.hits.length ?? 0) < 2;
    find("#texts-title").textContent = isAsking(question) ? "Texts" : "Newest texts";
    find("#pictures-title").textContent = isAsking(question) ? "Pictures" : "Newest pictures";
  }

  #fill({ section, list }, hits, question, { kept, isNews }) {
    const best = Math.max(0, ...hits.map((hit) => hit.score ?? 0));
    section.hidden = hits.length === 0;
    const wanted = hits.map((hit) => {
      const key = `${hit.modality} ${hit.content_id} ${hit.thumbnail_url ?? hit.occurred_at}`;
      const item = this.items.get(key) ?? this.#build(hit, isNews);
      updateHit(item, hit, { best, side: sideOf(question, hit) });
      kept.set(key, item);
      return item;
    });
    arrange(list, wanted);
    settleRow(list);
  }

  #build(hit, isNews) {
    const item = buildHit(hit, this.actions);
    item.classList.toggle("is-new", isNews);
    return item;
  }
}

/** Let the keyboard skip the items that a one-row list does not show. */
function settleRow(list) {
  const isOneRow = list.classList.contains("is-one-row");
  for (const item of list.children) item.inert = isOneRow && item.offsetTop > list.firstElementChild.offsetTop;
}
