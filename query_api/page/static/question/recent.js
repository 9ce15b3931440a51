// The texts that were searched for last, kept in this browser.

const KEY = "cliptide-recent";
const MAX_KEPT = 8;

/** Return the latest texts, the newest first. */
export function recentTexts() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((text) => typeof text === "string").slice(0, MAX_KEPT) : [];
  } catch {
    return [];
  }
}

export function rememberText(text) {
  const wanted = text.trim();
  if (wanted === "") return;
  keep([wanted, ...recentTexts().filter((other) => other.toLowerCase() !== wanted.toLowerCase())].slice(0, MAX_KEPT));
}

export const forgetTexts = () => keep([]);

function keep(texts) {
  try {
    localStorage.setItem(KEY, JSON.stringify(texts));
  } catch {
    // Without room, or where the browser forbids it, nothing is kept.
  }
}
