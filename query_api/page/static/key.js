// Asking for an API key; several calls that need one at once wait for the same answer.

import { find } from "./elements.js";
import { onKeyNeeded } from "./service.js";

export function watchForKeys() {
  let asked = null;
  onKeyNeeded((reason) => {
    asked ??= askOnce(reason).finally(() => { asked = null; });
    return asked;
  });
}

function askOnce(reason) {
  const dialog = find("#key");
  const input = find("#key-input");
  find("#key-reason").textContent = `The service asks for one: ${reason}.`;
  input.value = "";
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    find("#key-form").addEventListener("submit", () => resolve(input.value.trim()), { once: true });
  });
}
