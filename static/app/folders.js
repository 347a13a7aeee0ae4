/** A whole folder into a container: its directories are made, and its files sent; what is there already is asked about
 *  once. */
import { refresh } from "./refresh.js";
import { AT_ONCE, abandon, busy, call, escaped, inside, line, place, question, reason, say, write } from "./sending.js";
import { toast } from "./toasts.js";
import { bytes } from "./text.js";

const FAILED_MOST = 10;
const ENDS = new Set(["storage-full", "no-room", "not-found", "forbidden", "policy", "busy"]);

/** A folder that was chosen: its files, which say where they lie in it. */
export function takeChosen(files) {
  const found = files.map((file) => ({ parts: file.webkitRelativePath.split("/"), file }));
  if (found.length) tree(found);
}

/** A folder that was dropped, empty directories too. */
export async function takeDropped(entry) {
  const found = [];
  try {
    await walk(entry, [entry.name], found);
  } catch (error) {
    toast("error", `${entry.name}: ${error.message}`);
    return;
  }
  tree(found);
}

async function walk(entry, parts, found) {
  if (entry.isFile) {
    found.push({ parts, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  found.push({ parts, file: null });
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await walk(one, [...parts, one.name], found);
  }
}

/** found: [{parts: names from the folder's own, file: null for a directory}]. */
async function tree(found) {
  const top = found[0].parts[0];
  const directory = document.getElementById("files").dataset.path;
  const at = (parts) => inside(directory, ...parts.map(escaped));
  const files = found
    .filter((one) => one.file)
    .map(({ parts, file }) => ({ file, path: at(parts), above: at(parts.slice(0, -1)), name: parts.join("/") }));
  const row = line(`${top}/`, () => {
    for (const { file, path } of files) abandon(file, path);
    refresh(`files:${place.dataset.files}`);
  });
  busy.count += 1;
  try {
    const within = lister(row);
    const old = await directories(found, directory, at, within, row);
    const there = await present(files, old, within);
    let left = files;
    if (there.size) {
      const choice = await question(say("existsTitle", `${top}/`), say("existSome", there.size, files.length), [
        ["leave", say("skip"), ""],
        ["replace", say("replace"), "btn-danger"],
      ]);
      if (!choice) {
        row.remove();
        return;
      }
      if (choice === "leave") left = files.filter(({ path }) => !there.has(path));
    }
    const failed = await all(left, there, row);
    if (row.signal.aborted) return;
    if (failed.length) {
      row.fail(say("someFailed", failed.length, left.length));
      toast("error", failed.slice(0, 3).join(" · "));
    } else row.ready(say("ready"));
  } catch (error) {
    if (row.signal.aborted) return;
    row.fail(reason(error));
    toast("error", `${top}/: ${reason(error)}`);
  } finally {
    busy.count -= 1;
    refresh(`files:${place.dataset.files}`);
  }
}

/** Asks, once each, what is in directories that are there. */
function lister(row) {
  const known = new Map();
  return async (directory) => {
    if (!known.has(directory)) {
      const paths = new Set();
      const query = new URLSearchParams({ path: directory, limit: "1000" });
      let next = `/containers/${place.dataset.files}/files?${query}`;
      while (next) {
        const page = await call("GET", next, undefined, row.signal);
        for (const item of page.items) paths.add(item.path);
        next = page.next?.replace("/api/v1", "") ?? null;
      }
      known.set(directory, paths);
    }
    return known.get(directory);
  };
}

/** Make the directories, the outer ones first; returns the paths of those that were there. */
async function directories(found, base, at, within, row) {
  const wanted = new Map();
  for (const { parts, file } of found) {
    for (let depth = 1; depth <= parts.length - (file ? 1 : 0); depth += 1)
      wanted.set(at(parts.slice(0, depth)), depth);
  }
  const old = new Set([base]);
  const paths = [...wanted.keys()].sort((one, other) => wanted.get(one) - wanted.get(other));
  for (const [number, path] of paths.entries()) {
    row.tell(number, paths.length, say("directories", number + 1, paths.length));
    const above = path.slice(0, path.lastIndexOf("/")) || "/";
    if (old.has(above) && (await within(above)).has(path)) old.add(path);
    else await call("POST", `/containers/${place.dataset.files}/files/directory`, { path }, row.signal);
  }
  return old;
}

/** The paths of files that are there already: in directories that were. */
async function present(files, old, within) {
  const there = new Set();
  for (const { above, path } of files) if (old.has(above) && (await within(above)).has(path)) there.add(path);
  return there;
}

/** Send files, a few at once; returns what went wrong. Ends early where the others would fail, too. */
async function all(files, there, row) {
  const failed = [];
  const offsets = new Map();
  const waiting = [...files];
  const size = files.reduce((sum, { file }) => sum + file.size, 0);
  let done = 0;
  let over = false;
  const told = () => {
    const sent = [...offsets.values()].reduce((sum, offset) => sum + offset, 0);
    row.tell(sent + done, size + files.length, say("sent", done, files.length, `${bytes(sent)} / ${bytes(size)}`));
  };
  const worker = async () => {
    while (waiting.length && !over && !row.signal.aborted) {
      const { file, path, name } = waiting.shift();
      try {
        if (file.size > Number(place.dataset.most)) throw new Error(say("tooLarge", bytes(Number(place.dataset.most))));
        await write(
          file,
          path,
          there.has(path),
          (offset) => {
            offsets.set(path, offset);
            told();
          },
          row.signal,
        );
      } catch (error) {
        if (row.signal.aborted) return;
        failed.push(`${name}: ${reason(error)}`);
        over = failed.length >= FAILED_MOST || ENDS.has(error.code) || !(error.status || error.message);
      }
      done += 1;
      offsets.set(path, file.size);
      told();
    }
  };
  told();
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (over) failed.push(...waiting.map(({ name }) => name));
  return failed;
}
