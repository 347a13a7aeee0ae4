/** How a file gets into a container: in pieces, goes on after a break, and is then put in place. */
import { ask } from "./ask.js";
import { word } from "./text.js";

const PIECE = 8 * 1024 * 1024,
  TRIES = 8;
export const AT_ONCE = 2;
export const place = document.getElementById("files");
const texts = document.getElementById("file-texts")?.dataset ?? {};
export const say = (name, ...values) => values.reduce((text, value) => text.replace("%s", value), texts[name] ?? name);
/** What would be lost with the page. */
export const busy = { count: 0 };

/** One call of the API; throws the message of an error, and a TypeError where nobody answers. */
export async function call(method, path, body, signal) {
  const token = document.querySelector("#upload-form input[name=csrfmiddlewaretoken]").value;
  const headers = {
    "X-CSRFToken": token,
    "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json",
  };
  const sent = body === undefined || body instanceof Blob ? body : JSON.stringify(body);
  const answer = await fetch(`/api/v1${path}`, { method, body: sent, headers, signal });
  const data = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (!answer.ok)
    throw Object.assign(new Error(data.message ?? word("lost")), { status: answer.status, code: data.code });
  return data;
}

const key = (file, path) => `boxroom:file:${place.dataset.files}:${path}:${file.size}:${file.lastModified}`;

/** The upload of a file: the one that an earlier visit of this page began, or a new one. */
async function begun(file, path, signal) {
  const known = sessionStorage.getItem(key(file, path));
  if (known) {
    try {
      return await call("GET", `/uploads/${known}`, undefined, signal);
    } catch (error) {
      if (!error.status) throw error;
    }
  }
  const about = { size_bytes: file.size, container: place.dataset.files, name: file.name.slice(-255) };
  const made = await call("POST", "/uploads", about, signal);
  sessionStorage.setItem(key(file, path), made.id);
  return { id: made.id, received_bytes: 0 };
}

async function send(file, path, told, signal) {
  let upload = await begun(file, path, signal);
  let failed = 0;
  while (upload.received_bytes < file.size) {
    const offset = upload.received_bytes;
    told(offset);
    try {
      upload = await call("PUT", `/uploads/${upload.id}?offset=${offset}`, file.slice(offset, offset + PIECE), signal);
      failed = 0;
    } catch (error) {
      if (signal.aborted || (error.status && error.status < 500 && error.status !== 422) || ++failed > TRIES)
        throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** failed));
      upload = await call("GET", `/uploads/${upload.id}`, undefined, signal).catch(() => upload);
    }
  }
  told(file.size);
  return upload.id;
}

/** Put a small file in place at once, a larger one by way of an upload. */
export async function write(file, path, replace, told, signal) {
  const files = `/containers/${place.dataset.files}/files`;
  if (file.size <= PIECE / 2) {
    const headers = replace ? {} : { "If-None-Match": "*" };
    const token = document.querySelector("#upload-form input[name=csrfmiddlewaretoken]").value;
    const answer = await fetch(`/api/v1${files}/content?path=${encodeURIComponent(path)}`, {
      method: "PUT",
      body: file,
      signal,
      headers: { ...headers, "X-CSRFToken": token, "Content-Type": "application/octet-stream" },
    });
    const data = await answer.json().catch(() => ({}));
    if (!answer.ok)
      throw Object.assign(new Error(data.message ?? word("lost")), { status: answer.status, code: data.code });
    return;
  }
  const upload = await send(file, path, told, signal);
  told(file.size, say("writing"));
  await call("POST", `${files}/upload`, { path, upload, replace }, signal);
  sessionStorage.removeItem(key(file, path));
}

/** Forget what was sent of a file. */
export function abandon(file, path) {
  const id = sessionStorage.getItem(key(file, path));
  sessionStorage.removeItem(key(file, path));
  if (id) call("DELETE", `/uploads/${id}`).catch(() => {});
}

/** A name as paths in calls have it. */
export const escaped = (name) =>
  name
    .replaceAll("\\", "\\\\")
    .replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (char) =>
      [...new TextEncoder().encode(char)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join(""),
    );

/** A directory's path, and what is in it. */
export const inside = (directory, ...names) => [directory.replace(/\/$/, ""), ...names].join("/");

export const reason = (error) => (error.status || !(error instanceof TypeError) ? error.message : word("lost"));

/** A line of its own for something that takes a while. stopped: called when it is cancelled. */
export function line(name, stopped) {
  const made = document.getElementById("upload-row").content.firstElementChild.cloneNode(true);
  const words = made.querySelector(".upload-words");
  const meter = made.querySelector("progress");
  const stop = new AbortController();
  made.querySelector(".upload-name").textContent = name;
  made.querySelector("[data-upload-stop]").addEventListener("click", () => {
    stop.abort();
    stopped?.();
    made.remove();
  });
  document.getElementById("uploads").append(made);
  return {
    signal: stop.signal,
    tell: (done, all, text) => {
      meter.value = (100 * done) / Math.max(1, all);
      words.textContent = text;
    },
    ready: (text) => {
      meter.value = 100;
      words.textContent = text;
      setTimeout(() => made.remove(), 4000);
    },
    fail: (text) => {
      made.classList.add("failed");
      words.textContent = text;
    },
    remove: () => made.remove(),
  };
}

let asked = Promise.resolve();
/** Ask one question after the other; becomes the key of the choice, null where it is cancelled.
 *  choices: [key, words, class]. */
export function question(title, text, choices) {
  const dialog = document.getElementById("dialog");
  const closed = () =>
    new Promise((resolve) => {
      dialog.addEventListener("close", () => setTimeout(resolve), { once: true });
    });
  const next = async () => {
    while (dialog.open) await closed();
    let chosen = null;
    ask(
      title,
      text,
      choices.map(([name, words, kind]) => [
        words,
        () => {
          chosen = name;
        },
        kind,
      ]),
    );
    await closed();
    return chosen;
  };
  asked = asked.then(next);
  return asked;
}
