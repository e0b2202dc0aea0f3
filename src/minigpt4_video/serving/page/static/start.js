// Before a video is open: limits, and examples to choose from.

import { bytes, language, lasting, say } from "./words.js";

const EXAMPLES = "/page/examples/";

/** Show what the server takes, and its examples; `choose(example)` is called for the one that is clicked. */
export function showStart({ model, limits, examples }, choose) {
  document.getElementById("model").textContent = say("model", { name: model });
  document.getElementById("limits").textContent = say("limits", {
    size: bytes(limits.bytes),
    time: lasting(limits.duration),
    pixels: +(limits.pixels / 1e6).toFixed(1),
    kept: lasting(limits.kept),
  });
  document.getElementById("examples").replaceChildren(...examples.map((example) => card(example, choose)));
}

function card(example, choose) {
  const preview = document.createElement("video");
  preview.muted = preview.playsInline = preview.loop = true;
  preview.tabIndex = -1;
  preview.setAttribute("aria-hidden", "true");
  preview.src = `${EXAMPLES}${example.video}#t=${example.poster}`;
  const title = document.createElement("span");
  title.textContent = example.title[language];
  const button = document.createElement("button");
  button.type = "button";
  button.append(preview, title);
  button.onmouseenter = () => preview.play().catch(() => {}); // a browser may forbid it
  button.onmouseleave = () => preview.pause();
  button.onclick = () => choose(example);
  const listed = document.createElement("li");
  listed.append(button);
  return listed;
}

/** The video and the subtitles of an example, as if they had been chosen. */
export function exampleFiles({ video, subtitles }) {
  return Promise.all([video, subtitles].map(file));
}

async function file(name) {
  const content = await (await fetch(EXAMPLES + name)).blob();
  return new File([content], name, { type: content.type });
}
