// Ask a person for an API key. Calls that need a key at the same time wait for the same answer.

import { find } from "../ui/elements.js";
import { onKeyNeeded } from "./service.js";

export function watchForKeys() {
  let asked = null;
  onKeyNeeded((refused) => {
    asked ??= askOnce(refused).finally(() => { asked = null; });
    return asked;
  });
}

function askOnce({ code }) {
  const dialog = find("#key");
  const input = find("#key-input");
  find("#key-reason").textContent =
    code === "unknown_key" ? "This key is not valid. Try another one." : "This service needs a key.";
  input.value = "";
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    find("#key-form").addEventListener("submit", () => resolve(input.value.trim()), { once: true });
  });
}
