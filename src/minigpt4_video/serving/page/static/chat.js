// The conversation: what was asked and answered, as it is shown and as the server is told of it.

import { clock, say } from "./words.js";

const log = document.getElementById("log");

export const turns = [];

export function forgetTurns() {
  turns.length = 0;
}

/** The conversation up to and with a turn as messages; a caption is asked by itself, as on the command line. */
export function messages(turn) {
  const told = turn.alone ? [turn] : turns.slice(0, turns.indexOf(turn) + 1).filter((one) => one === turn || one.answer);
  return told.flatMap((one) => [
    { role: "user", content: one.question },
    ...(one === turn ? [] : [{ role: "assistant", content: one.answer }]),
  ]);
}

/** Show nothing but a hint, and questions to choose from. */
export function showWelcome(questions, ask) {
  const welcome = document.createElement("div");
  welcome.className = "welcome";
  const hint = document.createElement("p");
  hint.textContent = say(questions.length ? "suggestions" : "welcome");
  const list = document.createElement("ul");
  for (const question of questions) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = question;
    button.onclick = () => ask(question);
    const listed = document.createElement("li");
    listed.append(button);
    list.append(listed);
  }
  welcome.append(hint, ...(questions.length ? [list] : []));
  log.replaceChildren(welcome);
}

/** Begin a turn; its element is filled as the answer comes. */
export function beginTurn(question, label, alone) {
  const turn = { question, label, alone, answer: "", state: "thinking" };
  turns.push(turn);
  log.querySelector(".welcome")?.remove();
  turn.element = document.createElement("div");
  turn.element.className = "turn";
  log.append(turn.element);
  showTurn(turn);
  return turn;
}

export function showTurn(turn) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80 || !turn.element.hasChildNodes();
  const asked = paragraph("asked", turn.label ? turn.label() : turn.question);
  asked.prepend(hidden(say("asked")));
  const answered = paragraph("answered", turn.answer || standing(turn));
  answered.classList.toggle("empty", !turn.answer);
  answered.prepend(hidden(say("answered")));
  turn.element.replaceChildren(asked, answered, ...moments(turn), ...about(turn));
  log.setAttribute("aria-busy", String(turn.state === "thinking"));
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function standing(turn) {
  if (turn.state === "waiting") return say("waiting", { seconds: turn.seconds });
  return say({ thinking: "thinking", stopped: "stopped", done: "no_words", failed: "no_words" }[turn.state]);
}

/** Buttons to the parts of a long video that an answer rests on. */
function moments(turn) {
  if (!turn.evidence?.length) return [];
  const list = document.createElement("div");
  list.className = "moments row";
  const from = document.createElement("span");
  from.className = "soft small";
  from.textContent = say("evidence");
  list.append(from);
  for (const part of turn.evidence) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = `${clock(part.start)} – ${clock(part.end)}`;
    button.title = part.text;
    button.onclick = () => turn.jump(part.start);
    list.append(button);
  }
  return [list];
}

function about(turn) {
  if (turn.state !== "done") return turn.state === "stopped" && turn.answer ? [line([say("stopped")])] : [];
  const told = [];
  if (turn.confidence !== null) {
    const percent = Math.round(100 * Math.exp(turn.confidence));
    const sure = document.createElement("span");
    const meter = document.createElement("span");
    meter.className = "meter";
    const filled = document.createElement("i");
    filled.style.width = `${percent}%`;
    meter.append(filled);
    sure.append(meter, say("confidence", { percent }));
    told.push(sure);
  }
  if (turn.frames) told.push(say("plan_frames", { count: turn.frames }));
  told.push(say("took", { seconds: turn.took.toFixed(1) }));
  return [line(told)];
}

function line(parts) {
  const element = document.createElement("div");
  element.className = "about";
  for (const part of parts) {
    const span = typeof part === "string" ? document.createElement("span") : part;
    if (typeof part === "string") span.textContent = part;
    element.append(span);
  }
  return element;
}

function paragraph(kind, text) {
  const element = document.createElement("p");
  element.className = kind;
  element.dir = "auto";
  element.textContent = text;
  return element;
}

function hidden(text) {
  const element = document.createElement("span");
  element.className = "unseen";
  element.textContent = `${text}: `;
  return element;
}
