// The words of the interface, in the language that was chosen or else the browser's.

const WORDS = await (await fetch("/page/words.json")).json();

const kept = localStorage.getItem("language");
export let language = kept in WORDS ? kept : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

/** A text by its name, with {values} put in. */
export function say(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

const listeners = [];

/** Call `tell` now and whenever the language changes. */
export function inWords(tell) {
  listeners.push(tell);
  tell();
}

export function speak(chosen) {
  language = chosen;
  localStorage.setItem("language", chosen);
  listeners.forEach((tell) => tell());
}

/** `[data-word]` is a text, `[data-word-label]` a name for screen readers, `[data-word-placeholder]` a hint. */
export function fillPage() {
  document.documentElement.lang = { en: "en", zh: "zh-CN" }[language];
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const element of document.querySelectorAll("[data-word-label]"))
    element.setAttribute("aria-label", say(element.dataset.wordLabel));
  for (const element of document.querySelectorAll("[data-word-placeholder]"))
    element.placeholder = say(element.dataset.wordPlaceholder);
  for (const button of document.querySelectorAll("[data-language]"))
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
}

/** 75.25 as 1:15.2, as the report has it. */
export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const tail = `${String(Math.floor((tenths % 600) / 10)).padStart(2, "0")}.${tenths % 10}`;
  const minutes = Math.floor(tenths / 600);
  return minutes < 60 ? `${minutes}:${tail}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
}

export function lasting(seconds) {
  if (seconds >= 7200) return say("hours", { count: +(seconds / 3600).toFixed(1) });
  return seconds >= 120 ? say("minutes", { count: Math.round(seconds / 60) }) : say("seconds", { count: Math.round(seconds) });
}

export function bytes(count) {
  const unit = count >= 2 ** 30 ? [2 ** 30, "GB"] : count >= 2 ** 20 ? [2 ** 20, "MB"] : [2 ** 10, "kB"];
  return `${+(count / unit[0]).toFixed(1)} ${unit[1]}`;
}
