/** Sends chosen files in pieces, goes on after a break, and then lets the form go with the uploads' ids. */
import { bytes, word } from "./text.js";

const PIECE = 8 * 1024 * 1024,
  TRIES = 8;
const form = document.querySelector("form[data-upload]");
const box = form?.querySelector("[data-upload-progress]");
let stop = null;

/** One call of the API; throws the message of an error, and a TypeError where nobody answers. */
async function call(method, path, body, signal) {
  const token = form.querySelector("input[name=csrfmiddlewaretoken]").value;
  const headers = {
    "X-CSRFToken": token,
    "Content-Type": body instanceof Blob ? "application/octet-stream" : "application/json",
  };
  const answer = await fetch(`/api/v1/uploads${path}`, { method, body, headers, signal });
  if (answer.status === 204) return null;
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(data.message ?? word("lost")), { status: answer.status });
  return data;
}

const key = (file) => `boxroom:upload:${file.name}:${file.size}:${file.lastModified}`;

/** The upload of a file: the one that an earlier visit of this page began, or a new one. */
async function begun(file, signal) {
  const known = sessionStorage.getItem(key(file));
  if (known) {
    try {
      return await call("GET", `/${known}`, undefined, signal);
    } catch (error) {
      if (!error.status) throw error;
    }
  }
  const about = { size_bytes: file.size, name: file.name.slice(-255) };
  const made = await call("POST", "", JSON.stringify(about), signal);
  sessionStorage.setItem(key(file), made.id);
  return { id: made.id, received_bytes: 0 };
}

async function send(file, told, signal) {
  let upload = await begun(file, signal);
  let failed = 0;
  while (upload.received_bytes < file.size) {
    const offset = upload.received_bytes;
    told(offset);
    try {
      upload = await call("PUT", `/${upload.id}?offset=${offset}`, file.slice(offset, offset + PIECE), signal);
      failed = 0;
    } catch (error) {
      if (signal.aborted || (error.status && error.status < 500 && error.status !== 422) || ++failed > TRIES)
        throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** failed));
      upload = await call("GET", `/${upload.id}`, undefined, signal).catch(() => upload);
    }
  }
  told(file.size);
  sessionStorage.removeItem(key(file));
  return upload.id;
}

form?.addEventListener("submit", async (event) => {
  const inputs = [...form.querySelectorAll("input[data-sends]")].filter((input) => input.files.length);
  if (!inputs.length || form.dataset.sent) return;
  event.preventDefault();
  if (stop) return;
  stop = new AbortController();
  const total = inputs.reduce((sum, input) => sum + input.files[0].size, 0);
  const meter = box.querySelector("progress");
  const words = box.querySelector("[data-upload-words]");
  box.hidden = false;
  let before = 0;
  try {
    for (const input of inputs) {
      const id = await send(
        input.files[0],
        (offset) => {
          meter.value = (100 * (before + offset)) / Math.max(1, total);
          words.textContent = `${bytes(before + offset)} / ${bytes(total)}`;
        },
        stop.signal,
      );
      before += input.files[0].size;
      form.elements[input.dataset.sends].value = id;
    }
    form.dataset.sent = "1";
    form.submit();
  } catch (error) {
    words.textContent = stop.signal.aborted ? "" : error.status ? error.message : word("lost");
    box.hidden = stop.signal.aborted;
  } finally {
    stop = null;
  }
});

form?.querySelector("[data-upload-cancel]")?.addEventListener("click", () => {
  stop?.abort();
  for (const input of form.querySelectorAll("input[data-sends]")) {
    const file = input.files[0];
    const id = file && sessionStorage.getItem(key(file));
    if (!id) continue;
    sessionStorage.removeItem(key(file));
    call("DELETE", `/${id}`).catch(() => {});
  }
});
