// The page: opens a video, shows what the model sees of it, asks.

import { beginTurn, forgetTurns, messages, showTurn, showWelcome, turns } from "./chat.js";
import { keyDialog } from "./key.js";
import { onDrop } from "./dropping.js";
import { notice, tell } from "./notices.js";
import { followPlayer, loadPlayer, seek, stopPlayer } from "./player.js";
import { answer, discard, footage, onKeyWanted, Refusal, report, settings, subtitles, upload } from "./server.js";
import { exampleFiles, showStart } from "./start.js";
import { showFootage } from "./strip.js";
import { bytes, clock, fillPage, inWords, language, say, speak } from "./words.js";

const at = (id) => document.getElementById(id);
const SUBTITLE_FILE = /\.(srt|vtt|ass|ssa|sub)$/i;

let server; // what /v1/page/settings tells
let clip = null; // the video that is open
let chosenSubtitles = null; // a file, before the video is there
let opening = null; // aborts what is being opened
let asking = null; // aborts the answer that is being found
let drawing = null; // aborts frames that are being fetched

// Words

for (const button of document.querySelectorAll("[data-language]"))
  button.onclick = () => speak(button.dataset.language);
inWords(fillPage);
inWords(() => {
  turns.forEach(showTurn);
  if (server) showStart(server, openExample);
  chooseSubtitles(chosenSubtitles);
  if (clip?.shown) showClip();
  if (clip?.shown?.indexed !== undefined) followIndex(clip);
});
at("caption-language").value = language;

// Opening

async function openExample(example) {
  try {
    const [video, said] = await exampleFiles(example);
    await open(video, said, example);
  } catch (error) {
    tell("start-notice", error);
  }
}

at("file").onchange = (event) => take(event.target);
at("subtitle-file").onchange = (event) => take(event.target);
at("later-subtitles").onchange = (event) => take(event.target);
at("cancel").onclick = () => opening?.abort();
at("another").onclick = close;

function take(input) {
  receive([...input.files]);
  input.value = "";
}

/** Files that were chosen or dropped: a video is opened, subtitles are kept for it or added to the one that is open. */
function receive(files) {
  const said = files.find((one) => SUBTITLE_FILE.test(one.name)) ?? null;
  const video = files.find((one) => one !== said);
  if (said && !video && clip) return addSubtitles(said);
  if (said) chooseSubtitles(said);
  if (video) open(video, chosenSubtitles, null);
}

function chooseSubtitles(file) {
  chosenSubtitles = file;
  at("subtitle-name").textContent = file ? say("subtitles_chosen", { name: file.name }) : "";
}

async function open(video, said, example) {
  close();
  const mine = (opening = new AbortController());
  notice("start-notice", null);
  const next = { file: video, name: video.name, example, id: null, cues: null, said: null, frames: null };
  try {
    checkSize(video);
    if (said) Object.assign(next, { cues: await subtitles(said, mine.signal), said: said.name });
    next.id = await sendVideo(next, mine.signal);
    step(null, () => say("reading", { name: video.name }));
    next.shown = { ...(await footage(wanted(next, true), mine.signal)), asked: null };
    clip = next;
    chooseSubtitles(null);
    enter();
  } catch (error) {
    if (error.code === "subtitles") chooseSubtitles(null);
    tell("start-notice", error);
  }
  if (clip !== next) discard(next.id);
  if (opening !== mine) return; // another file has been chosen meanwhile
  opening = null;
  at("progress").hidden = true;
}

function checkSize(file) {
  const most = server.limits.bytes;
  if (file.size > most) throw refused("size", { name: file.name, size: bytes(file.size), most: bytes(most) });
  if (!file.size) throw refused("empty", { name: file.name });
}

function refused(code, values) {
  return Object.assign(new Refusal(code), { values });
}

function step(share, text) {
  at("progress").hidden = false;
  const bar = at("progress").querySelector("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  at("progress-text").textContent = text();
}

function sendVideo(video, signal) {
  const sent = (share) =>
    step(share, () => say("uploading", { name: video.name, percent: Math.floor(100 * share) }));
  sent(0);
  return upload(video.file, sent, signal);
}

function enter() {
  at("start").hidden = true;
  at("work").hidden = false;
  loadPlayer(clip.file, clip.cues);
  const slider = at("frames");
  slider.max = Math.max(1, Math.min(server.frames.most, clip.shown.available));
  slider.value = clip.shown.frames.length;
  slider.disabled = slider.max === "1";
  startOver();
  showClip();
  followIndex(clip);
  at("clip-name").focus();
  scrollTo(0, 0);
}

function close() {
  opening?.abort();
  asking?.abort();
  drawing?.abort();
  stopPlayer();
  discard(clip?.id);
  clip = null;
  at("start").hidden = false;
  at("work").hidden = true;
}

function showClip() {
  const { shown } = clip;
  const said = clip.said ? say("facts_subtitles", { name: clip.said }) : say(shown.subtitles ? "facts_inside" : "facts_none");
  const facts = say("facts", { time: clock(shown.duration), width: shown.width, height: shown.height });
  at("clip-name").textContent = clip.example?.title[language] ?? clip.name;
  at("clip-facts").textContent = `${facts} · ${said}`;
  at("frames-number").value = at("frames").value;
  showFootage(shown, (frame) => seek(frame));
  if (!turns.length) showWelcome(clip.example?.questions[language] ?? [], (question) => ask(question));
}

// A long video

const LOOK_AGAIN = 2000; // milliseconds

/** Tell that a video is long, and how far it is indexed, until it is. */
async function followIndex(film) {
  const told = at("long");
  told.hidden = film.shown.indexed === undefined;
  for (let share = film.shown.indexed; !told.hidden && clip === film; ) {
    told.textContent = share < 1 ? say("indexing", { percent: Math.floor(100 * share) }) : say("indexed");
    if (share >= 1) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
    try {
      share = (await footage({ ...wanted(film, false), num_frames: null })).indexed ?? 1;
    } catch {
      return; // a question will tell what is wrong
    }
  }
}

// What the model sees

function wanted(video, pictures, told = []) {
  return {
    file_id: video.id,
    subtitles: video.cues ?? "auto",
    num_frames: video.frames,
    messages: told,
    pictures,
  };
}

/** Fetch frames and plan again, as for the last turn; the frames' pictures only where they may have changed. */
async function look(anew) {
  const pictures = anew || clip.shown.indexed !== undefined || clip.frames !== clip.shown.asked;
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  notice("stage-notice", null);
  at("strip").classList.toggle("old", pictures);
  const last = turns.filter((turn) => turn.state === "done").at(-1);
  try {
    const shown = await resent((id) => footage({ ...wanted(clip, pictures, last ? messages(last) : []), file_id: id }, signal));
    if (!pictures) shown.frames.forEach((frame, index) => (frame.picture = clip.shown.frames[index]?.picture));
    clip.shown = { ...shown, asked: clip.frames };
    showClip();
  } catch (error) {
    tell("stage-notice", error);
  } finally {
    if (!signal.aborted) at("strip").classList.remove("old");
  }
}

/** Do something with the upload, and once more with a new one where it has expired. */
async function resent(act) {
  const video = clip;
  try {
    return await act(video.id);
  } catch (error) {
    if (error.code !== "expired") throw error;
    try {
      video.id = await upload(video.file, () => {}, new AbortController().signal);
    } catch (failure) {
      throw failure.code === "unreachable" ? error : failure; // the file has gone from the disk
    }
    return act(video.id);
  }
}

let settled; // the timer that waits for the slider to rest
at("frames").oninput = (event) => {
  at("frames-number").value = event.target.value;
  clearTimeout(settled);
  settled = setTimeout(() => {
    clip.frames = Number(event.target.value);
    look(true);
  }, 250);
};

async function addSubtitles(said) {
  notice("stage-notice", null);
  try {
    clip.cues = await subtitles(said);
    clip.said = said.name;
    loadPlayer(clip.file, clip.cues);
    await look(true);
  } catch (error) {
    tell("stage-notice", error);
  }
}

// Asking

const question = at("question");

question.oninput = () => {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
};
question.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("composer").requestSubmit();
};
at("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || asking) return;
  question.value = "";
  question.oninput();
  ask(text);
};
at("stop").onclick = () => asking?.abort();
at("again").onclick = startOver;

for (const button of document.querySelectorAll("[data-style]"))
  button.onclick = () => {
    const chosen = at("caption-language").value;
    const { style } = button.dataset;
    const name = { en: "English", zh: "中文" }[chosen];
    ask(server.captions[chosen][style], { label: () => say("caption_asked", { style: say(style), language: name }), alone: true });
  };

function startOver() {
  asking?.abort();
  forgetTurns();
  notice("chat-notice", null);
  showWelcome(clip.example?.questions[language] ?? [], (text) => ask(text));
  busy(false);
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
  for (const button of document.querySelectorAll("[data-style]")) button.disabled = is;
  at("again").disabled = !turns.length;
  at("report").disabled = is || !turns.some((turn) => turn.state === "done");
}

async function ask(text, { label = null, alone = false } = {}) {
  if (asking) return;
  const video = clip;
  const mine = (asking = new AbortController());
  notice("chat-notice", null);
  const turn = beginTurn(text, label, alone);
  busy(true);
  const begun = performance.now();
  const hear = (piece) => {
    turn.answer += piece;
    turn.state = "thinking";
    showTurn(turn);
  };
  try {
    const jump = (time) => seek({ time, picture: clip.shown.frames.find((frame) => frame.time >= time)?.picture ?? "" });
    const point = (evidence) => Object.assign(turn, { evidence, jump });
    turn.confidence = await resent((id) =>
      patiently(turn, mine.signal, () => answer(request(id, turn), hear, point, mine.signal)));
    turn.took = (performance.now() - begun) / 1000;
    turn.state = "done";
    asking = null;
    await look(false);
    turn.frames = clip === video ? clip.shown.plan.frames : null;
  } catch (error) {
    turn.state = error.name === "AbortError" ? "stopped" : "failed";
    if (clip === video) tell("chat-notice", error);
  }
  if (asking === mine) asking = null;
  if (clip !== video || !turns.includes(turn)) return;
  showTurn(turn);
  busy(false);
}

function request(id, turn) {
  const [first, ...others] = messages(turn);
  const shown = { type: "file", file: { file_id: id } };
  const told = [{ role: "user", content: [shown, { type: "text", text: first.content }] }, ...others];
  return { model: server.model, messages: told, subtitles: clip.cues ?? "auto", num_frames: clip.frames };
}

const PATIENCE = 3; // times that a busy server is asked again

async function patiently(turn, signal, act) {
  for (let tried = 0; ; tried++) {
    try {
      return await act();
    } catch (error) {
      if (error.code !== "busy" || tried === PATIENCE || turn.answer) throw error;
      Object.assign(turn, { state: "waiting", seconds: error.seconds });
      showTurn(turn);
      signal.throwIfAborted();
      await rest(1000 * error.seconds, signal);
    }
  }
}

function rest(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const wake = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", wake, { once: true });
  });
}

at("report").onclick = async () => {
  const told = turns
    .filter((turn) => turn.state === "done")
    .map(({ question, answer, confidence, took }) => ({ question, answer, confidence: confidence ?? 0, seconds: took }));
  const last = turns.filter((turn) => turn.state === "done").at(-1);
  try {
    const page = await resent((id) =>
      report({ ...wanted(clip, true, messages(last)), file_id: id, title: clip.name, turns: told }));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(page);
    link.download = `${clip.name.replace(/\.\w+$/, "")}.html`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    tell("chat-notice", error);
  }
};

// Beginning

onKeyWanted(keyDialog);
followPlayer();
onDrop((files) => server && receive(files));
try {
  server = await settings();
  showStart(server, openExample);
} catch (error) {
  tell("start-notice", error);
}
