// The question as the page shows it: the text, the picture, the basket of examples, and the title.

import { find } from "../ui/elements.js";
import { showBasket } from "./basket.js";
import { isAsking } from "./question.js";

/** `drop(hit, side)` removes an example, `empty()` all of them. */
export function showQuestion(question, { drop, empty }) {
  const input = find("#text");
  if (input.value !== question.text) input.value = question.text;
  find("#picture-chip").hidden = question.picture === null;
  if (question.picture !== null && find("#picture-preview").src !== question.picture.address) find("#picture-preview").src = question.picture.address;
  find("#crop-picture").disabled = !question.picture?.original;
  find("#clear").hidden = !isAsking(question);
  find("#search").classList.toggle("is-asking", isAsking(question));
  document.title = question.text.trim() === "" ? "cliptide" : `${question.text.trim()} · cliptide`;
  showBasket(question, { drop, empty });
}
