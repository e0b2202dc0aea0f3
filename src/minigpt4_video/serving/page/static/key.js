// The key that a server may demand.

import { say } from "./words.js";

const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
const notice = document.getElementById("key-notice");
let asked = null;

/** Resolves to a key; `wrong` says that the one before was not known. Several who ask at once are answered together. */
export function keyDialog(wrong) {
  notice.textContent = say("key_wrong");
  notice.hidden = !wrong;
  field.value = "";
  dialog.oncancel = (event) => event.preventDefault(); // there is nothing behind it without a key
  asked ??= new Promise((resolve) => {
    dialog.onclose = () => {
      asked = null;
      resolve(field.value.trim());
    };
    dialog.showModal();
  });
  return asked;
}
