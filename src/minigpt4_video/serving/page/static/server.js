// What is asked of the server: its public interface, and a little under /v1/page/.

import { say } from "./words.js";

/** The server, or what is before it, does not do what was asked. `code` chooses the words. */
export class Refusal extends Error {
  constructor(code, message = "", seconds = 0) {
    super(message);
    this.code = code;
    this.seconds = seconds;
  }

  /** In words; `values` are what they name besides the message. */
  tell() {
    return say(`error_${this.code}`, { message: this.message, ...this.values });
  }
}

let askForKey;

/** `ask(wrong)` resolves to a key that the person gives. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

function headers() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function keyGiven() {
  sessionStorage.setItem("key", await askForKey(sessionStorage.getItem("key") !== null));
}

const CODES = ["media", "subtitles", "plan"];

function refusal(status, text, retryAfter) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // What stands before the server may answer in another form.
  }
  const message = error.message ?? "";
  if (status === 429 || status === 503) return new Refusal("busy", message, Number(retryAfter) || 1);
  if (error.code === "file_not_found") return new Refusal("expired", message);
  if (CODES.includes(error.code)) return new Refusal(error.code, message);
  return status < 500 && message ? new Refusal("refused", message) : new Refusal("fault", message);
}

async function request(path, options = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("unreachable");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw refusal(response.status, await response.text(), response.headers.get("Retry-After"));
    await keyGiven();
  }
}

function post(path, body, signal) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Model, limits, requests for captions, examples. */
export async function settings() {
  return (await request("/v1/page/settings")).json();
}

/** Send a file once; its id. `progress` is told the share that has been sent. */
export async function upload(file, progress, signal) {
  for (;;) {
    const { status, text, retryAfter } = await sent(file, progress, signal);
    if (status === 200) return JSON.parse(text).id;
    if (status !== 401) throw refusal(status, text, retryAfter);
    await keyGiven();
  }
}

function sent(file, progress, signal) {
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest(); // fetch tells nothing of how far it is
    sending.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(headers())) sending.setRequestHeader(name, value);
    sending.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    sending.onload = () =>
      resolve({ status: sending.status, text: sending.responseText, retryAfter: sending.getResponseHeader("Retry-After") });
    sending.onerror = () => reject(new Refusal("unreachable"));
    sending.onabort = () => reject(new DOMException("", "AbortError"));
    signal.addEventListener("abort", () => sending.abort(), { once: true });
    sending.send(form);
  });
}

/** Delete an upload that nobody needs any more; where that fails, it expires. */
export function discard(id) {
  if (id) fetch(`/v1/files/${id}`, { method: "DELETE", headers: headers() }).catch(() => {});
}

/** A subtitle file as cues with their times. */
export async function subtitles(file, signal) {
  const response = await request(`/v1/page/subtitles?name=${encodeURIComponent(file.name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
    signal,
  });
  return (await response.json()).cues;
}

/** The frames that the model is shown with a conversation, their texts, and the plan; pictures where wanted. */
export async function footage(wanted, signal) {
  return (await post("/v1/page/footage", wanted, signal)).json();
}

/** The report as a file. */
export async function report(wanted) {
  return (await post("/v1/page/report", wanted)).blob();
}

/**
 * Stream an answer: `hear` is told each piece, `point` the parts of a long video that it rests on. Resolves to its mean
 * log-probability, or null without one.
 */
export async function answer(wanted, hear, point, signal) {
  const response = await post("/v1/chat/completions", { ...wanted, stream: true, logprobs: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const sure = [];
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Refusal("broken");
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data:")) continue;
        const data = event.slice(5).trim();
        if (data === "[DONE]") return sure.length ? sure.reduce((sum, one) => sum + one, 0) / sure.length : null;
        const told = JSON.parse(data);
        if (told.error) throw refusal(500, data);
        if (told.evidence) point(told.evidence);
        const choice = told.choices[0];
        choice?.logprobs?.content?.forEach((token) => sure.push(token.logprob));
        if (choice?.delta?.content) hear(choice.delta.content);
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refusal) throw error;
    throw new Refusal("broken");
  } finally {
    reader.cancel().catch(() => {});
  }
}
