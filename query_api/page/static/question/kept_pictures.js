// Pictures that were searched with, kept in this tab, so that reload, back and forward find them again.

const PREFIX = "cliptide-picture-";
const MAX_KEPT = 4;

/** Keep a picture and return its key. Where the browser has no room, older pictures are forgotten first. */
export function keepPicture(base64) {
  const key = Date.now().toString(36) + Math.random().toString(36).slice(2, 6);
  const kept = keysOfPictures();
  for (const old of kept.splice(0, Math.max(0, kept.length - MAX_KEPT + 1))) sessionStorage.removeItem(old);
  for (;;) {
    try {
      sessionStorage.setItem(PREFIX + key, base64);
      return key;
    } catch {
      if (kept.length === 0) return key; // this picture is lost at the next reload, which says so
      sessionStorage.removeItem(kept.shift());
    }
  }
}

/** Return a kept picture as the question needs it; null if this tab does not have it. */
export function findPicture(key) {
  const base64 = sessionStorage.getItem(PREFIX + key);
  if (base64 === null) return null;
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const original = new Blob([bytes]);
  return { base64, key, address: URL.createObjectURL(original), original };
}

function keysOfPictures() {
  return Object.keys(sessionStorage).filter((name) => name.startsWith(PREFIX)).sort();
}
