/** A text file of a container: lines with numbers, saved whole, never over what somebody else has saved meanwhile. */
import { toast } from "./toasts.js";
import { word } from "./text.js";

const area = document.getElementById("editor");
const save = document.getElementById("save");
const lines = document.getElementById("editor-lines");
const state = document.getElementById("edit-state");
const conflict = document.getElementById("edit-conflict");
// what the server wrote, not what is there now: somebody may have typed before this ran
let saved = area?.defaultValue ?? "",
  etag = area?.dataset.etag ?? "",
  busy = false,
  counted = 0;

function number() {
  const count = area.value.split("\n").length;
  if (count !== counted) {
    counted = count;
    lines.textContent = Array.from({ length: count }, (_none, index) => index + 1).join("\n");
  }
  lines.scrollTop = area.scrollTop;
}

function show() {
  const changed = area.value !== saved;
  if (save) save.disabled = !changed || busy;
  if (state)
    state.textContent = busy
      ? area.dataset.saving
      : changed
        ? area.dataset.changed
        : state.textContent === ""
          ? ""
          : area.dataset.saved;
}

async function write(match) {
  if (busy) return;
  busy = true;
  show();
  const text = area.value;
  const body = area.dataset.lineEnds === "crlf" ? text.replaceAll("\n", "\r\n") : text;
  const headers = {
    "X-CSRFToken": document.querySelector("input[name=csrfmiddlewaretoken]").value,
    "Content-Type": "application/octet-stream",
  };
  if (match) headers["If-Match"] = `"${match}"`;
  const path = encodeURIComponent(area.dataset.path);
  const url = `/api/v1/containers/${area.dataset.container}/files/content?path=${path}`;
  try {
    const answer = await fetch(url, { method: "PUT", body: new Blob([body]), headers });
    const data = await answer.json().catch(() => ({}));
    if (answer.ok) {
      saved = text;
      etag = data.etag;
      conflict.hidden = true;
      state.textContent = area.dataset.saved;
    } else if (answer.status === 412) {
      document.getElementById("edit-conflict-words").textContent = data.message;
      conflict.hidden = false;
      conflict.scrollIntoView({ block: "nearest" });
    } else toast("error", data.message ?? word("lost"));
  } catch {
    toast("error", word("lost"));
  } finally {
    busy = false;
    show();
  }
}

/** A tab at the caret, or the selected lines one step in or out; by what a person could undo again. */
function indent(out) {
  const { selectionStart: from, selectionEnd: to, value } = area;
  if (from === to && !out) {
    document.execCommand("insertText", false, "\t");
    return;
  }
  const start = value.lastIndexOf("\n", from - 1) + 1;
  const chosen = value.slice(start, to);
  const moved = chosen
    .split("\n")
    .map((line) => (out ? line.replace(/^(\t| {1,4})/, "") : line && `\t${line}`))
    .join("\n");
  if (moved === chosen) return;
  area.setSelectionRange(start, to);
  document.execCommand("insertText", false, moved);
  area.setSelectionRange(start, start + moved.length);
}

if (area) {
  number();
  show();
  area.addEventListener("input", () => {
    number();
    show();
  });
  area.addEventListener("scroll", () => {
    lines.scrollTop = area.scrollTop;
  });
  let leave = false; // Escape lets the next Tab leave the text, for who has no mouse
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      leave = true;
      return;
    }
    if (event.key === "Tab" && !leave && !area.readOnly && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      indent(event.shiftKey);
    }
    if (event.key !== "Shift") leave = false;
  });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s" && save) {
      event.preventDefault();
      if (area.value !== saved) write(etag);
    }
  });
  save?.addEventListener("click", () => write(etag));
  document.getElementById("edit-overwrite")?.addEventListener("click", () => write(""));
  document.getElementById("edit-reload")?.addEventListener("click", () => {
    saved = area.value;
    location.reload();
  });
  window.addEventListener("beforeunload", (event) => {
    if (area.value !== saved) event.preventDefault();
  });
}
