// A question out of an address: its examples, its picture and the opened content are found by their ids.

import { readAddress } from "./address.js";
import { findPicture } from "./kept_pictures.js";
import { findHits } from "./known_hits.js";

const PICTURE_IS_AWAY = "This link was made with a picture that only its sender's browser has. Drop the picture here to search with it.";

let number = 0; // of the newest restoring; an older one that ends later is dropped

/**
 * Restore the question of an address. `ask(question)` and `open(hit or null)` show it, `say(words)` tells what
 * could not be restored, `fail(error)` that the service did not answer.
 */
export async function restore(address, picture, { ask, open, say, fail }) {
  const own = ++number;
  const read = readAddress(address);
  try {
    const ids = [...new Set([...read.more, ...read.less, ...(read.opened === null ? [] : [read.opened])])];
    const hits = new Map((ids.length === 0 ? [] : await findHits(ids)).map((hit) => [hit.content_id, hit]));
    if (own !== number) return;
    const named = (some) => some.map((id) => hits.get(id)).filter(Boolean);
    const kept = pictureOf(read.picture, picture);
    ask({ ...read.question, picture: kept, more: named(read.more), less: named(read.less) });
    open(read.opened === null ? null : hits.get(read.opened) ?? null);
    if (read.picture !== null && kept === null) say(PICTURE_IS_AWAY);
    else if (hits.size < ids.length) say("Some contents that this link names are deleted.");
  } catch (error) {
    if (own === number) fail(error);
  }
}

/** Return the picture of this key: the one that is there, else the one that the tab has kept. */
function pictureOf(key, current) {
  if (key === null) return null;
  return current?.key === key ? current : findPicture(key);
}
