/** The list of containers: blocks of rows that are there only while in view, filters in the address bar, a narrow
 *  panel beside it, and keys. */
import { afterPaint, typing } from "./app.js";
import { check, list, none, some } from "./chosen.js";
import { leave } from "./events.js";
import { morph } from "./refresh.js";
import { draw, watch } from "./sparkline.js";

const TRIES = 5;
const NAMES_MAX = 200;
const narrow = window.matchMedia("(max-width: 820px)");
let current = null;

function start() {
  afterPaint(() => {
    look();
    listen();
    draw();
  });
  const panel = document.getElementById("panel");
  current = new URLSearchParams(location.search).get("panel");
  if (!panel.hidden) mark();
}

// ---- blocks: filled when they come near the view, emptied when they are far away
let observer = null;
function look() {
  observer?.disconnect();
  observer = new IntersectionObserver(crossed, { rootMargin: "300px 0px" });
  for (const block of list().querySelectorAll("[data-block]")) {
    if (block.classList.contains("gap")) size(block, rowHeight() * Number(block.dataset.size));
    observer.observe(block);
  }
}

function rowHeight() {
  const row = list().querySelector("tr.row");
  return row ? row.getBoundingClientRect().height : narrow.matches ? 108 : 41;
}

function size(block, height) {
  block.querySelector("td").style.height = `${height}px`;
}

function crossed(entries) {
  for (const { target, isIntersecting, boundingClientRect } of entries) {
    const empty = target.classList.contains("gap");
    if (isIntersecting && empty) fill(target);
    if (!isIntersecting && !empty && list().querySelectorAll("[data-block]").length > 3)
      clear(target, boundingClientRect.height);
  }
}

async function fill(block) {
  const query = new URLSearchParams(location.search);
  query.set("block", block.dataset.block);
  const html = await ask(`${list().dataset.rowsUrl}?${query}`);
  if (!html || !block.isConnected) return;
  block.replaceChildren(...html.querySelectorAll("tr.row"));
  block.classList.remove("gap");
  ready(block);
}

function clear(block, height) {
  if (!height || block.contains(document.activeElement)) return;
  const row = document.createElement("tr");
  const cell = document.createElement("td");
  cell.colSpan = list().querySelectorAll("thead th").length;
  row.append(cell);
  block.replaceChildren(row);
  block.classList.add("gap");
  size(block, height);
  listen();
}

/** Hear the numbers of the rows that are in the page, and of no other. */
function listen() {
  watch([...list().querySelectorAll("tr.row")].map((row) => row.dataset.name));
}

/** What the panel answers, as a document; null where it refuses, or does not answer however often it is asked. */
async function ask(url, target) {
  const headers = { "HX-Request": "true" };
  if (target) headers["HX-Target"] = target;
  for (let failed = 0; failed < TRIES; failed += 1) {
    if (failed) await new Promise((resolve) => setTimeout(resolve, 150 * 2 ** failed));
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(20000) }).catch(() => null);
    const text = answer?.ok ? await answer.text().catch(() => null) : null;
    if (text !== null) return new DOMParser().parseFromString(text, "text/html");
    if (answer && answer.status < 500 && !answer.ok) return null;
  }
  return null;
}

function ready(place) {
  window.htmx?.process(place);
  check(place);
  mark();
  listen();
  requestAnimationFrame(draw);
}

// ---- which columns: in the address, and kept in this browser
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-column]")) return;
  const boxes = [...document.querySelectorAll("[data-column]:checked")];
  const columns = boxes.map((box) => box.dataset.column).join(".") || "none";
  document.cookie = `boxroom_columns=${columns}; path=/containers/; max-age=31536000; samesite=lax`;
  go((query) => query.set("columns", columns));
});

// ---- what changes elsewhere changes here
const changed = new Set();
let turn = Promise.resolve();
/** Answers are put in one after the other: an older one must not undo what a newer one said. */
const inTurn = (work) => {
  turn = turn.then(work, work);
};
let timer = null;
let again = null;
document.addEventListener("boxroom:container", (event) => {
  if (!list()) {
    inTurn(first);
    return;
  }
  changed.add(event.detail.name);
  timer ??= setTimeout(
    () =>
      inTurn(async () => {
        timer = null;
        const names = [...changed];
        changed.clear();
        if (names.length > NAMES_MAX) {
          reload();
          return;
        }
        const query = new URLSearchParams(location.search);
        query.set("names", names.join(","));
        const html = await ask(`${list().dataset.rowsUrl}?${query}`);
        if (!html) return;
        const total = html.getElementById("chips")?.dataset.total;
        takeChips(html);
        if (total !== list().dataset.total) {
          reload();
          return;
        }
        for (const name of names) {
          const row = document.getElementById(`row-${name}`);
          const fresh = html.getElementById(`row-${name}`);
          if (row && fresh) {
            keepCheck(row, fresh);
            morph(row, fresh);
          } else if (row || (fresh && new URLSearchParams(location.search).get("status"))) {
            reload();
            return;
          }
        }
      }),
    60,
  );
});
document.addEventListener("boxroom:resync", () => (list() ? reload() : inTurn(first)));

/** There was none to list: load the page anew once there is. */
async function first() {
  if ((await ask(location.href))?.getElementById("list")) leave();
}

function keepCheck(row, fresh) {
  const box = fresh.querySelector("[data-check]");
  if (row.querySelector("[data-check]")?.checked) box.setAttribute("checked", "");
  if (row.classList.contains("current")) fresh.classList.add("current");
  if (row.classList.contains("open")) fresh.classList.add("open");
}

/** Take the whole list anew, with the blocks that are filled now. */
function reload() {
  again ??= setTimeout(
    () =>
      inTurn(async () => {
        again = null;
        const query = new URLSearchParams(location.search);
        const filled = [...list().querySelectorAll("[data-block]:not(.gap)")].map((block) => block.dataset.block);
        query.set("blocks", filled.join(",") || "0,1");
        const html = await ask(`${location.pathname}?${query}`, "list");
        const fresh = html?.getElementById("list");
        if (!fresh) return;
        morph(list(), fresh);
        takeChips(html);
        look();
        ready(list());
      }),
    120,
  );
}

function takeChips(html) {
  const fresh = html.getElementById("chips");
  const old = document.getElementById("chips");
  if (fresh && old) morph(old, fresh);
}

// ---- searching as you type; the address bar follows
const search = document.getElementById("search");
let searching = null;
search?.addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(
    () =>
      go((query) => {
        if (search.value) query.set("q", search.value);
        else query.delete("q");
      }),
    150,
  );
});
if (search && search.value !== search.defaultValue) search.dispatchEvent(new Event("input")); // typed before this ran
document.querySelector("[data-filter]")?.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("click", (event) => {
  const chip = event.target.closest?.("[data-chip]");
  if (!chip || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  go((query) => {
    if (chip.dataset.chip) query.set("status", chip.dataset.chip);
    else query.delete("status");
  }, true);
});
window.addEventListener("popstate", () => {
  if (!list()) return;
  const query = new URLSearchParams(location.search);
  if (search) search.value = query.get("q") ?? "";
  const name = query.get("panel");
  if (name) open(name);
  else if (!panel.hidden) shut();
  show();
});

/** Change what the address bar asks for. step: a way that Back goes, as a chip is; what is typed is none. */
function go(change, step = false) {
  const query = new URLSearchParams(location.search);
  change(query);
  query.delete("blocks");
  const where = `${location.pathname}${query.size ? `?${query}` : ""}`;
  if (step) history.pushState(null, "", where);
  else history.replaceState(null, "", where);
  show();
}

/** The list as the address bar asks for it. */
function show() {
  inTurn(async () => {
    const html = await ask(location.href, "list");
    const fresh = html?.getElementById("list");
    if (!fresh) return;
    list().replaceWith(fresh);
    takeChips(html);
    look();
    ready(fresh);
  });
}

// ---- the panel beside the list
const panel = document.getElementById("panel");
document.addEventListener("click", (event) => {
  const more = event.target.closest?.("[data-open-panel]");
  if (more) {
    open(more.dataset.openPanel);
    return;
  }
  if (event.target.closest?.("[data-close-panel]")) {
    shut();
    return;
  }
  const row = event.target.closest?.("tr.row");
  if (row && !event.target.closest("a, button, input, label")) open(row.dataset.name);
});

async function open(name) {
  const html = await ask(`/containers/${name}/_panel`);
  const body = html?.getElementById("panel-body");
  if (!body) return;
  panel.replaceChildren(body);
  panel.hidden = false;
  document.getElementById("list-and-panel").classList.add("with-panel");
  window.htmx?.process(panel);
  remember("panel", name);
  current = name;
  mark();
  document.dispatchEvent(new CustomEvent("boxroom:morphed", { detail: panel }));
  if (narrow.matches) panel.querySelector("[data-close-panel]").focus();
}

function shut() {
  panel.hidden = true;
  panel.replaceChildren();
  document.getElementById("list-and-panel").classList.remove("with-panel");
  remember("panel", "");
  mark();
}

function remember(name, value) {
  const query = new URLSearchParams(location.search);
  if (value) query.set(name, value);
  else query.delete(name);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
}

function mark() {
  const shown = new URLSearchParams(location.search).get("panel");
  for (const row of list().querySelectorAll("tr.row")) {
    row.classList.toggle("open", row.dataset.name === shown);
    row.classList.toggle("current", row.dataset.name === current);
  }
}

// ---- keys
document.addEventListener("keydown", (event) => {
  if (!list() || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.activeElement === search) search.blur();
    else if (some()) none();
    else if (!panel.hidden) shut();
    return;
  }
  if (typing(event.target)) {
    if (event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) {
      search.blur();
      step(1);
      event.preventDefault();
    }
    return;
  }
  const row = current && document.getElementById(`row-${current}`);
  const press = (selector) => row?.querySelector(selector)?.click();
  if (event.key === "j" || event.key === "ArrowDown") {
    step(1);
    event.preventDefault();
  } else if (event.key === "k" || event.key === "ArrowUp") {
    step(-1);
    event.preventDefault();
  } else if (event.key === "Enter" && row && !event.target.closest("a, button")) press(".c-name a");
  else if (event.key === "s") press("[data-verb=start], [data-verb=stop], [data-why=start], [data-why=stop]");
  else if (event.key === "t" && row)
    location.assign(`/containers/${current}/terminal`); // says why, where there is none to open
  else if (event.key === "x") {
    const box = row?.querySelector("[data-check]");
    if (box) box.click();
  } else if (event.key === "c" && row)
    window.htmx.ajax("GET", `/containers/${current}/_dialog/clone`, { target: "#dialog", swap: "innerHTML" });
});

function step(by) {
  const rows = [...list().querySelectorAll("tr.row")];
  const at = rows.findIndex((row) => row.dataset.name === current);
  const next = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
  if (!next) return;
  current = next.dataset.name;
  mark();
  next.scrollIntoView({ block: "nearest" });
  if (!panel.hidden) open(current);
}

if (list()) start();
