/** Several files at once: chosen by their boxes, then taken as one archive, moved, or deleted. */
import { refresh } from "./refresh.js";
import { ask } from "./ask.js";
import { busy, call, escaped, inside, line, place, reason, say } from "./sending.js";
import { toast } from "./toasts.js";

const LINK_MAX = 7000,
  NAMES_SHOWN = 8;
const bar = document.getElementById("files-bulk");
const chosen = new Set();
const rows = () => [...document.querySelectorAll("#files tr[data-file]")];
const nameOf = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Have boxes, bar and link be those of what is chosen; what is not there any more is not chosen. */
function sync() {
  const there = new Map(rows().map((row) => [row.dataset.file, row]));
  for (const path of chosen) if (!there.has(path)) chosen.delete(path);
  for (const [path, row] of there) row.querySelector("[data-file-check]").checked = chosen.has(path);
  const every = document.querySelector("#files [data-file-check-all]");
  if (every) {
    every.checked = chosen.size > 0 && chosen.size === there.size;
    every.indeterminate = chosen.size > 0 && chosen.size < there.size;
  }
  bar.hidden = !chosen.size;
  bar.querySelector("[data-files-count]").textContent = say("selected", chosen.size);
  const query = new URLSearchParams({ path: place.dataset.path });
  if (place.dataset.snapshot) query.set("snapshot", place.dataset.snapshot);
  for (const path of chosen) query.append("only", nameOf(path));
  bar.querySelector("[data-files-take]").href = `/api/v1/containers/${place.dataset.files}/files/archive?${query}`;
}

const shownNames = (paths) => {
  const names = paths
    .slice(0, NAMES_SHOWN)
    .map(
      (path) =>
        document.querySelector(`#files tr[data-file="${CSS.escape(path)}"] .file-name span`)?.textContent ??
        nameOf(path),
    );
  return names.join(", ") + (paths.length > NAMES_SHOWN ? ` ${say("more", paths.length - NAMES_SHOWN)}` : "");
};

/** Do something to one after the other, and say how far it is and what went wrong. */
async function each(paths, words, act) {
  const row = line(words);
  const failed = [];
  busy.count += 1;
  for (const [number, path] of paths.entries()) {
    row.tell(number, paths.length, `${number} / ${paths.length}`);
    try {
      await act(path, row.signal);
    } catch (error) {
      if (row.signal.aborted) break;
      failed.push(`${nameOf(path)}: ${reason(error)}`);
    }
    if (row.signal.aborted) break;
  }
  busy.count -= 1;
  if (failed.length) {
    row.fail(say("someFailed", failed.length, paths.length));
    toast("error", failed.slice(0, 3).join(" · "));
  } else row.ready(say("ready"));
  chosen.clear();
  sync();
  refresh(`files:${place.dataset.files}`);
}

function remove() {
  const paths = [...chosen];
  ask(say("deleteTitle", paths.length), `${say("deleteWords")} ${shownNames(paths)}`, [
    [
      say("delete"),
      () =>
        each(paths, say("deleting"), (path, signal) =>
          call(
            "DELETE",
            `/containers/${place.dataset.files}/files?${new URLSearchParams({ path, recursive: "true" })}`,
            undefined,
            signal,
          ),
        ),
      "btn-danger",
    ],
  ]);
}

function move() {
  const paths = [...chosen];
  const field = Object.assign(document.createElement("input"), {
    type: "text",
    className: "form-control",
    id: "d-into",
    value: place.dataset.path,
    maxLength: 4095,
    autocomplete: "off",
    spellcheck: false,
  });
  const label = Object.assign(document.createElement("label"), { htmlFor: "d-into", textContent: say("into") });
  ask(say("moveTitle", paths.length), shownNames(paths), [
    [
      say("move"),
      () => {
        const typed = field.value.trim();
        const names = typed.split("/").filter(Boolean).map(escaped);
        const into = typed.startsWith("/") ? `/${names.join("/")}` : inside(place.dataset.path, ...names);
        each(paths, say("moving"), (path, signal) =>
          call(
            "POST",
            `/containers/${place.dataset.files}/files/rename`,
            { path, to: inside(into, nameOf(path)) },
            signal,
          ),
        );
      },
      "btn-primary",
    ],
  ]);
  const box = Object.assign(document.createElement("div"), { className: "field" });
  box.append(label, field);
  document.querySelector("#dialog .dialog-body").append(box);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") document.querySelector("#dialog .btn-primary").click();
  });
  field.select();
}

if (bar) {
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-file-check]")) chosen[box.checked ? "add" : "delete"](box.closest("tr").dataset.file);
    else if (box.matches("[data-file-check-all]"))
      for (const row of rows()) chosen[box.checked ? "add" : "delete"](row.dataset.file);
    else return;
    sync();
  });
  document.addEventListener("boxroom:morphed", sync);
  bar.querySelector("[data-files-none]").addEventListener("click", () => {
    chosen.clear();
    sync();
  });
  bar.querySelector("[data-files-delete]")?.addEventListener("click", remove);
  bar.querySelector("[data-files-move]")?.addEventListener("click", move);
  bar.querySelector("[data-files-take]").addEventListener("click", (event) => {
    if (event.currentTarget.href.length <= LINK_MAX) return;
    event.preventDefault();
    toast("error", say("tooMany"));
  });
  sync();
}
