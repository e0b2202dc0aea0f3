// What went wrong, in one sentence, where it went wrong.

import { Refusal } from "./server.js";
import { inWords, say } from "./words.js";

inWords(() => {
  for (const element of document.querySelectorAll(".notice[id]")) element.tell?.();
});

/** Show what `words()` gives, in another language when that is chosen; null shows nothing. */
export function notice(id, words) {
  const element = document.getElementById(id);
  element.tell = words ? () => (element.textContent = words()) : null;
  element.hidden = !words;
  element.tell?.();
}

/** Tell of an error, unless the person has caused it by stopping something. */
export function tell(id, error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Refusal)) console.error(error);
  notice(id, () => (error instanceof Refusal ? error.tell() : say("error_fault")));
}
