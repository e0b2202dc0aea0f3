// The player, which plays the person's own file: nothing is fetched for it.

import { markMoment } from "./strip.js";

const player = document.getElementById("player");
const still = document.getElementById("still");
const unplayable = document.getElementById("unplayable");
let address = null;
let words = null;

/** Follow what is played in the strip of frames. */
export function followPlayer() {
  player.addEventListener("timeupdate", () => markMoment(player.currentTime));
  player.addEventListener("error", () => {
    if (!player.getAttribute("src")) return;
    player.hidden = true;
    still.hidden = unplayable.hidden = false;
    const first = document.querySelector("#strip img");
    if (first) still.src = first.src;
  });
}

/** Show a file, with subtitles where there are any. */
export function loadPlayer(file, cues) {
  stopPlayer();
  address = URL.createObjectURL(file);
  const picture = file.type.startsWith("image/");
  player.hidden = picture;
  still.hidden = !picture;
  unplayable.hidden = true;
  (picture ? still : player).src = address;
  if (picture || !cues?.length) return;
  words = URL.createObjectURL(new Blob([webvtt(cues)], { type: "text/vtt" }));
  const track = document.createElement("track");
  Object.assign(track, { kind: "subtitles", src: words, default: true });
  player.append(track);
}

export function stopPlayer() {
  player.pause();
  player.replaceChildren();
  player.removeAttribute("src");
  player.load();
  for (const old of [address, words]) if (old) URL.revokeObjectURL(old);
  address = words = null;
}

/** Go to a frame: `{time, picture}`. */
export function seek(frame) {
  if (player.hidden) still.src = frame.picture;
  else player.currentTime = frame.time;
  markMoment(frame.time);
}

function webvtt(cues) {
  const stamp = (seconds) => new Date(1000 * seconds).toISOString().slice(11, 23);
  const text = (cue) => cue.text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\n\s*\n/g, "\n");
  return `WEBVTT\n\n${cues.map((cue) => `${stamp(cue.start)} --> ${stamp(cue.end)}\n${text(cue)}\n`).join("\n")}`;
}
