// The frames that the model sees, with times and subtitles, and what fills its context.

import { clock, say } from "./words.js";

const PARTS = [
  ["frames", "plan_frames", "frame_tokens"],
  ["tag", "plan_tags", "tag_tokens"],
  ["subtitles", "plan_subtitles", "subtitle_tokens"],
  ["words", "plan_question", "question_tokens"],
  ["reserve", "plan_reserve", "answer_reserve"],
];

const strip = document.getElementById("strip");
const bar = document.getElementById("bar");
const legend = document.getElementById("legend");
const leftOut = document.getElementById("left-out");

/** Show frames and the plan; `choose(frame)` is called for the one that is clicked. */
export function showFootage({ frames, plan, left_out: left, width, height }, choose) {
  strip.style.setProperty("--aspect", width / height);
  strip.replaceChildren(...frames.map((frame) => item(frame, choose)));
  strip.onkeydown = walk;
  showPlan(plan, left);
}

function item(frame, choose) {
  const button = document.createElement("button");
  button.type = "button";
  button.classList.toggle("left", !frame.seen);
  button.dataset.time = frame.time;
  button.title = say("frame_show");
  const image = document.createElement("img");
  image.alt = say("frame");
  image.src = frame.picture;
  const below = document.createElement("span");
  below.dir = "auto";
  const time = document.createElement("time");
  time.textContent = clock(frame.time) + (frame.seen ? "" : ` (${say("frame_left_out")})`);
  below.append(time, frame.text);
  button.append(image, below);
  button.onclick = () => choose(frame);
  const listed = document.createElement("li");
  listed.append(button);
  return listed;
}

/** Arrow keys go from frame to frame. */
function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const buttons = [...strip.querySelectorAll("button")];
  const next = buttons[buttons.indexOf(document.activeElement) + step];
  if (!step || !next) return;
  event.preventDefault();
  next.focus();
}

function showPlan(plan, left) {
  const free = Math.max(0, plan.window - plan.total);
  const parts = PARTS.map(([kind, word, tokens]) => [kind, say(word, { count: plan.frames }), plan[tokens]]);
  parts.push(["free", say("plan_free"), free]);
  bar.setAttribute("aria-label", say("plan_label", { total: plan.total, window: plan.window }));
  bar.replaceChildren(...parts.filter(([, , tokens]) => tokens).map(([kind, , tokens]) => {
    const part = document.createElement("i");
    part.className = kind;
    part.style.width = `${(100 * tokens) / (plan.total + free)}%`;
    return part;
  }));
  legend.replaceChildren(...parts.map(([kind, label, tokens]) => {
    const line = document.createElement("li");
    const colour = document.createElement("i");
    colour.className = kind;
    line.append(colour, `${label} ${tokens}`);
    return line;
  }));
  const sentences = [];
  if (left.frames) sentences.push(say("frames_left_out", { left: left.frames, all: left.all_frames }));
  if (left.words) sentences.push(say("words_left_out", { left: left.words, all: left.all_words }));
  leftOut.replaceChildren(...(sentences.length ? sentences : [say("nothing_left_out")]).map((sentence) => {
    const line = document.createElement("li");
    line.textContent = sentence;
    return line;
  }));
}

/** Mark the frame that was last shown at a moment of the player. */
export function markMoment(seconds) {
  let current = null;
  for (const button of strip.querySelectorAll("button")) {
    if (Number(button.dataset.time) <= seconds + 0.05) current = button;
    button.removeAttribute("aria-current");
  }
  current?.setAttribute("aria-current", "true");
}
