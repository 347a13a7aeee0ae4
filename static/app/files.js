/** The files of a container: what is chosen or dropped is sent in pieces, goes on after a break, and is then put in place. */
import { ask } from "./ask.js";
import { refresh } from "./refresh.js";
import { toast } from "./toasts.js";
import { bytes, word } from "./text.js";

const PIECE = 8 * 1024 * 1024, TRIES = 8, AT_ONCE = 2;
const place = document.getElementById("files");
const input = document.querySelector("[data-files-input]");
const texts = document.getElementById("file-texts")?.dataset ?? {};
const say = (name, ...values) => values.reduce((text, value) => text.replace("%s", value), texts[name] ?? name);
const waiting = [];
let working = 0;

/** One call of the API; throws the message of an error, and a TypeError where nobody answers. */
async function call(method, path, body, signal) {
  const token = document.querySelector("#upload-form input[name=csrfmiddlewaretoken]").value;
  const headers = { "X-CSRFToken": token, "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json" };
  const sent = body === undefined || body instanceof Blob ? body : JSON.stringify(body);
  const answer = await fetch(`/api/v1${path}`, { method, body: sent, headers, signal });
  const data = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(data.message ?? word("lost")), { status: answer.status, code: data.code });
  return data;
}

const key = (file, path) => `boxroom:file:${place.dataset.files}:${path}:${file.size}:${file.lastModified}`;

/** The upload of a file: the one that an earlier visit of this page began, or a new one. */
async function begun(file, path, signal) {
  const known = sessionStorage.getItem(key(file, path));
  if (known) {
    try { return await call("GET", `/uploads/${known}`, undefined, signal); } catch (error) { if (!error.status) throw error; }
  }
  const made = await call("POST", "/uploads", { size_bytes: file.size, container: place.dataset.files }, signal);
  sessionStorage.setItem(key(file, path), made.id);
  return { id: made.id, received_bytes: 0 };
}

async function send(file, path, told, signal) {
  let upload = await begun(file, path, signal), failed = 0;
  while (upload.received_bytes < file.size) {
    const offset = upload.received_bytes;
    told(offset);
    try {
      upload = await call("PUT", `/uploads/${upload.id}?offset=${offset}`, file.slice(offset, offset + PIECE), signal);
      failed = 0;
    } catch (error) {
      if (signal.aborted || (error.status && error.status < 500 && error.status !== 422) || ++failed > TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** failed));
      upload = await call("GET", `/uploads/${upload.id}`, undefined, signal).catch(() => upload);
    }
  }
  told(file.size);
  return upload.id;
}

/** Put a small file in place at once, a larger one by way of an upload. */
async function write(file, path, replace, told, signal) {
  const files = `/containers/${place.dataset.files}/files`;
  if (file.size <= PIECE / 2) {
    const headers = replace ? {} : { "If-None-Match": "*" };
    const token = document.querySelector("#upload-form input[name=csrfmiddlewaretoken]").value;
    const answer = await fetch(`/api/v1${files}/content?path=${encodeURIComponent(path)}`, {
      method: "PUT", body: file, signal, headers: { ...headers, "X-CSRFToken": token, "Content-Type": "application/octet-stream" },
    });
    const data = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(data.message ?? word("lost")), { status: answer.status, code: data.code });
    return;
  }
  const upload = await send(file, path, told, signal);
  told(file.size, say("writing"));
  await call("POST", `${files}/upload`, { path, upload, replace }, signal);
  sessionStorage.removeItem(key(file, path));
}

const escaped = (name) => name.replaceAll("\\", "\\\\").replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (char) =>
  [...new TextEncoder().encode(char)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join(""));

/** The longest part of a name that is shown as it is: what its directory is searched for. */
const shownName = (name) => name.split(/[\p{C}\p{Z}]/u).sort((one, other) => other.length - one.length)[0];

function row(file) {
  const made = document.getElementById("upload-row").content.firstElementChild.cloneNode(true);
  made.querySelector(".upload-name").textContent = file.name;
  document.getElementById("uploads").append(made);
  return made;
}

function choice(file) {
  return new Promise((resolve) => {
    let chosen = false;
    ask(say("existsTitle", file.name), say("exists", file.name), [[say("replace"), () => { chosen = true; }, "btn-danger"]]);
    document.getElementById("dialog").addEventListener("close", () => setTimeout(() => resolve(chosen)), { once: true });
  });
}

async function one(file, directory) {
  const path = `${directory.replace(/\/$/, "")}/${escaped(file.name)}`;
  const line = row(file), words = line.querySelector(".upload-words"), meter = line.querySelector("progress");
  const stop = new AbortController();
  line.querySelector("[data-upload-stop]").addEventListener("click", () => {
    stop.abort();
    const id = sessionStorage.getItem(key(file, path));
    sessionStorage.removeItem(key(file, path));
    if (id) call("DELETE", `/uploads/${id}`).catch(() => {});
    line.remove();
  });
  const told = (offset, text) => {
    meter.value = (100 * offset) / Math.max(1, file.size);
    words.textContent = text ?? `${bytes(offset)} / ${bytes(file.size)}`;
  };
  told(0);
  try {
    if (file.size > Number(place.dataset.most)) throw new Error(say("tooLarge", bytes(Number(place.dataset.most))));
    // asked before anything is sent: what is there, is not replaced unasked
    const query = new URLSearchParams({ path: directory, q: shownName(file.name), limit: "1000" });
    const named = await call("GET", `/containers/${place.dataset.files}/files?${query}`, undefined, stop.signal);
    const there = named.items.some((item) => item.path === path);
    if (there && !(await choice(file))) { line.remove(); return; }
    await write(file, path, there, told, stop.signal);
    meter.value = 100;
    words.textContent = say("ready");
    refresh(`files:${place.dataset.files}`);
    setTimeout(() => line.remove(), 4000);
  } catch (error) {
    if (stop.signal.aborted) return;
    line.classList.add("failed");
    words.textContent = error.status || !(error instanceof TypeError) ? error.message : word("lost");
    toast("error", `${file.name}: ${words.textContent}`);
  }
}

async function work() {
  while (working < AT_ONCE && waiting.length) {
    working += 1;
    const [file, directory] = waiting.shift();
    one(file, directory).finally(() => { working -= 1; work(); });
  }
}

function take(list) {
  for (const file of list) waiting.push([file, document.getElementById("files").dataset.path]);
  work();
}

document.querySelector("[data-choose-files]")?.addEventListener("click", () => input.click());
input?.addEventListener("change", () => { take(input.files); input.value = ""; });

if (place && "changes" in place.dataset) {
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  place.dataset.drop = say("drop");
  place.addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; place.classList.add("dropping"); } });
  place.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) place.classList.remove("dropping"); });
  place.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  place.addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    place.classList.remove("dropping");
    take([...event.dataTransfer.items].filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile()).filter(Boolean));
  });
}
window.addEventListener("beforeunload", (event) => { if (working) event.preventDefault(); });
