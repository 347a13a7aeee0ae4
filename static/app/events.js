/** The one event socket of a page: says what changed, reconnects by itself, and catches up after a gap. */
import { refresh } from "./refresh.js";
import { toast } from "./toasts.js";

const finished = new Set(["succeeded", "failed", "cancelled"]);
const ended = new Set();
const LEAVING_MS = 10000;
const SOON = 20; // a panel that restarts is back within seconds, and waited for
let socket = null;
let attempt = 0;
let lostAt = 0;

export function connect() {
  if (!document.body.dataset.user) return;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const since = lostAt ? "" : document.body.dataset.heard; // what was told since the page was made comes first
  socket = new WebSocket(`${scheme}//${location.host}/ws/events${since ? `?since=${since}` : ""}`);
  socket.onopen = () => {
    attempt = 0;
    document.getElementById("connection").hidden = true;
    // a page that does not say where it began: what ended since was told to nobody here
    if (lostAt || (!since && document.querySelector("[data-topic] .state-working, [data-topic] progress"))) catchUp();
    lostAt = 0;
  };
  socket.onmessage = (message) => take(JSON.parse(message.data));
  socket.onclose = (event) => {
    if (event.code === 4401) {
      leave();
      return;
    }
    lostAt ||= Date.now();
    attempt += 1;
    if (attempt > 2) document.getElementById("connection").hidden = false;
    setTimeout(connect, Math.min(250 * 2 ** attempt, attempt < SOON ? 2000 : 8000) * (0.7 + Math.random() * 0.6));
  };
}

/** Look again at everything: notices may have been missed. */
function catchUp() {
  document.dispatchEvent(new CustomEvent("boxroom:resync"));
  for (const part of document.querySelectorAll("[data-topic]")) refresh(...part.dataset.topic.split(" "));
}

function take(event) {
  if (event.type === "resync") {
    catchUp();
    return;
  }
  if (event.type?.startsWith("container.")) changed("container", event.name, event.type === "container.deleted");
  if (event.type === "operation.changed") {
    refresh("operation", `operation:${event.id}`);
    if (event.container) changed("container", event.container, false);
    else refresh("image", "network");
    if (finished.has(event.status) && !ended.has(event.id)) {
      ended.add(event.id);
      tellSoon();
    }
  }
  if (event.type?.startsWith("image.") || event.type?.startsWith("network.")) refresh(event.type.split(".")[0]);
}

/** Refresh what shows an object; other modules hear of it as boxroom:container. */
export function changed(kind, name, gone) {
  if (gone) refresh(kind);
  else refresh(kind, `${kind}:${name}`);
  if (kind === "container") document.dispatchEvent(new CustomEvent("boxroom:container", { detail: { name, gone } }));
}

let telling = null;
const told = new Set();

function tellSoon() {
  telling ??= setTimeout(async () => {
    telling = null;
    const fresh = [...ended].filter((id) => !told.has(id));
    fresh.forEach((id) => told.add(id));
    if (!fresh.length || document.hidden) return;
    const answer = await fetch(`/operations/_ended?ids=${fresh.slice(-20).join(",")}`, {
      headers: { "HX-Request": "true" },
    }).catch(() => null);
    if (!answer?.ok) return;
    const { items } = await answer.json();
    items.slice(0, 3).forEach((item) => toast(item.level, item.text, item.href));
  }, 400);
}

// ---- a page is left once: two ways at a time break each other off, and the later one is not always the one that
// somebody chose
let left = { at: -Infinity, to: null };
const leaving = (to) => {
  left = { at: performance.now(), to };
};

/** Go to another page, or load this one anew, because of what was told. Where the page is being left already, that goes
 *  before; should it come to nothing, as a download does, this is done then. */
export function leave(to = "") {
  const rest = left.at + LEAVING_MS - performance.now();
  if (to === left.to) return;
  if (rest > 0) {
    setTimeout(leave, rest, to);
    return;
  }
  leaving(to);
  if (to) location.assign(to);
  else location.reload();
}
addEventListener("beforeunload", () => {
  if (left.at + LEAVING_MS < performance.now()) leaving(null);
});
addEventListener("pageshow", (event) => {
  if (event.persisted) left = { at: -Infinity, to: null };
});
document.body.addEventListener("htmx:beforeOnLoad", (event) => {
  const to = event.detail.xhr.getResponseHeader("HX-Redirect");
  if (to && to === left.to) event.preventDefault();
  else if (to && !to.includes("#")) leaving(to);
});
