/** The files of a container: what is chosen or dropped is sent, and what is selected is taken, moved or deleted. */
import { takeChosen, takeDropped } from "./folders.js";
import { refresh } from "./refresh.js";
import { AT_ONCE, abandon, busy, call, escaped, inside, line, place, question, reason, say, write } from "./sending.js";
import "./selected.js";
import { toast } from "./toasts.js";
import { bytes } from "./text.js";

const input = document.querySelector("[data-files-input]");
const folder = document.querySelector("[data-folder-input]");
const waiting = [];
let working = 0;

/** The longest part of a name that is shown as it is: what its directory is searched for. */
const shownName = (name) => name.split(/[\p{C}\p{Z}]/u).sort((one, other) => other.length - one.length)[0];

async function one(file, directory) {
  const path = inside(directory, escaped(file.name));
  const row = line(file.name, () => abandon(file, path));
  const told = (offset, text) => row.tell(offset, file.size, text ?? `${bytes(offset)} / ${bytes(file.size)}`);
  told(0);
  try {
    if (file.size > Number(place.dataset.most)) throw new Error(say("tooLarge", bytes(Number(place.dataset.most))));
    // asked before anything is sent: what is there, is not replaced unasked
    const query = new URLSearchParams({ path: directory, q: shownName(file.name), limit: "1000" });
    const named = await call("GET", `/containers/${place.dataset.files}/files?${query}`, undefined, row.signal);
    const there = named.items.some((item) => item.path === path);
    if (there) {
      const choice = await question(say("existsTitle", file.name), say("exists", file.name), [
        ["replace", say("replace"), "btn-danger"],
      ]);
      if (!choice) {
        row.remove();
        return;
      }
    }
    await write(file, path, there, told, row.signal);
    row.ready(say("ready"));
    refresh(`files:${place.dataset.files}`);
  } catch (error) {
    if (row.signal.aborted) return;
    row.fail(reason(error));
    toast("error", `${file.name}: ${reason(error)}`);
  }
}

function work() {
  while (working < AT_ONCE && waiting.length) {
    working += 1;
    busy.count += 1;
    const [file, directory] = waiting.shift();
    one(file, directory).finally(() => {
      working -= 1;
      busy.count -= 1;
      work();
    });
  }
}

function take(list) {
  for (const file of list) waiting.push([file, document.getElementById("files").dataset.path]);
  work();
}

document.querySelector("[data-choose-files]")?.addEventListener("click", () => input.click());
input?.addEventListener("change", () => {
  take(input.files);
  input.value = "";
});
document.querySelector("[data-choose-folder]")?.addEventListener("click", () => folder.click());
folder?.addEventListener("change", () => {
  takeChosen([...folder.files]);
  folder.value = "";
});

if (place && "changes" in place.dataset) {
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  place.dataset.drop = say("drop");
  place.addEventListener("dragenter", (event) => {
    if (files(event)) {
      depth += 1;
      place.classList.add("dropping");
    }
  });
  place.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) place.classList.remove("dropping");
  });
  place.addEventListener("dragover", (event) => {
    if (files(event)) event.preventDefault();
  });
  place.addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    place.classList.remove("dropping");
    // asked for at once: what was dropped is gone after this turn
    const items = [...event.dataTransfer.items].map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    take(items.filter(([entry, file]) => file && !entry?.isDirectory).map(([, file]) => file));
    for (const [entry] of items) if (entry?.isDirectory) takeDropped(entry);
  });
}
window.addEventListener("beforeunload", (event) => {
  if (busy.count) event.preventDefault();
});
