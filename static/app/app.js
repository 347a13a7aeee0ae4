/** What every page has: dialogs, copying, times, keys, and the event socket. */
import { ask } from "./ask.js";
import { changed, connect } from "./events.js";
import "./menus.js";
import { openPalette } from "./palette.js";
import { refresh } from "./refresh.js";
import { ago, word } from "./text.js";
import { toast } from "./toasts.js";

const dialog = document.getElementById("dialog");

// ---- dialogs: htmx fills #dialog, then it opens; the server closes it with boxroom:close
document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== dialog) return;
  if (!dialog.open) dialog.showModal();
  const field = dialog.querySelector("[data-focus]") ?? dialog.querySelector("input:not([type=hidden]), button");
  field?.focus();
  guard();
});
// an answer to what was clicked before a dialog was opened is none to the dialog
document.body.addEventListener("boxroom:close", (event) => {
  if (dialog.open && dialog.contains(event.target)) dialog.close();
});
document.body.addEventListener("boxroom:toast", (event) => toast(event.detail.level, event.detail.text));
document.body.addEventListener("boxroom:changed", (event) => {
  for (const [kind, name] of Object.entries(event.detail)) {
    if (kind === "elt") continue;
    if (kind === "container") changed("container", name, false);
    else if (kind === "containers") document.dispatchEvent(new CustomEvent("boxroom:resync"));
    else refresh(kind, `${kind}:${name}`);
  }
  refresh("operation");
});
document.body.addEventListener("htmx:sendError", () => toast("error", word("lost")));
document.body.addEventListener("htmx:responseError", (event) => {
  if (!event.detail.xhr.getResponseHeader("HX-Trigger")) toast("error", word("lost"));
});
dialog?.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

// ---- what asks first, asks in the house's own dialog: hx-confirm, or data-confirm on a plain form
document.body.addEventListener("htmx:confirm", (event) => {
  if (!event.detail.question) return;
  event.preventDefault();
  askFor(event.detail.elt, event.detail.question, () => event.detail.issueRequest(true));
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.confirmed) return;
  event.preventDefault();
  askFor(form, form.dataset.confirm, () => {
    form.dataset.confirmed = "1";
    form.requestSubmit();
  });
});

/** data-title and data-do of the element name the question and its button. */
function askFor(element, question, go) {
  ask(element.dataset.title ?? word("sure"), question, [[element.dataset.do ?? word("goOn"), go, "btn-danger"]]);
}

/** A dialog whose button waits for the right word. */
function guard() {
  const field = dialog.querySelector("[data-must-equal]");
  if (!field) return;
  const button = dialog.querySelector("button[type=submit]");
  const check = () => {
    button.disabled = field.value.trim() !== field.dataset.mustEqual;
  };
  field.addEventListener("input", check);
  check();
}

// ---- a click answers at once: the row says what is being done before the server has answered
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const { act, doing } = event.target.dataset ?? {};
  if (!act || !doing) return;
  const name = CSS.escape(act);
  const places = [
    `#row-${name} .c-state`,
    `#container-head[data-name="${name}"] .head-name`,
    `#panel-body[data-name="${name}"] p`,
  ];
  for (const place of document.querySelectorAll(places.join())) {
    const state = place.querySelector(".state");
    if (state) {
      state.className = "state state-working";
      state.textContent = doing;
    }
  }
});

// what was refused, or did not arrive, is not being done: what is so is asked for
document.body.addEventListener("htmx:afterRequest", (event) => {
  const { act, doing } = event.target.dataset ?? {};
  if (act && doing && !event.detail.successful) changed("container", act, false);
});

// ---- clicks
document.addEventListener(
  "click",
  (event) => {
    const disabled = event.target.closest("[aria-disabled=true]");
    if (disabled) {
      event.preventDefault();
      event.stopPropagation();
      if (disabled.title) toast("info", disabled.title);
      return;
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      copyText(copy.dataset.copy);
      return;
    }
    if (event.target.closest("[data-close-dialog]")) dialog.close();
    if (event.target.closest("[data-open-palette]")) openPalette();
    const menu = event.target.closest("[data-toggle-menu]");
    if (menu) menu.setAttribute("aria-expanded", String(document.getElementById("sidebar").classList.toggle("open")));
  },
  true,
);

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    (dialog.open ? dialog : document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("ok", `${word("copied")}: ${text}`);
}

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-project-switch]")) {
    const url = new URL(location.href);
    const inside = url.pathname.startsWith("/containers/") && url.pathname !== "/containers/";
    const next = inside ? new URL("/containers/", url) : url;
    if (!inside) ["panel", "page", "blocks"].forEach((name) => next.searchParams.delete(name));
    if (event.target.value) next.searchParams.set("project", event.target.value);
    else next.searchParams.delete("project");
    location.assign(next);
  }
  const field = event.target.closest("[data-submit-on-change]");
  if (field && field.value === "" && field.dataset.confirmEmpty) {
    askFor(field, field.dataset.confirmEmpty, () => field.form.requestSubmit());
    dialog.addEventListener("close", () => field.form.reset(), { once: true }); // what is sent is sent by then
  } else field?.form.requestSubmit();
  const also = event.target.dataset.notAlso; // what is chosen here is no choice there
  for (const box of also ? event.target.form.querySelectorAll(`[name="${also}"]`) : []) {
    box.closest("label").hidden = box.value === event.target.value;
  }
});
document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-once]")) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
});

// ---- keys
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    if (document.activeElement?.closest(".xterm")) return;
    event.preventDefault();
    openPalette();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]"))
    return;
  if (event.key === "?") {
    document.getElementById("help").showModal();
    event.preventDefault();
  }
  if (event.key === "/") {
    const search = document.getElementById("search");
    if (search) {
      search.focus();
      search.select();
      event.preventDefault();
    }
  }
  const head = document.getElementById("container-head");
  if (head && event.key === "c") head.querySelector("[data-verb=clone], [data-why=clone]")?.click();
  if (head && event.key === "s")
    head.querySelector("[data-verb=start], [data-verb=stop], [data-why=start], [data-why=stop]")?.click();
  if (head && event.key === "t") document.querySelector('.tabs a[href$="/terminal"]')?.click();
});

export function typing(target) {
  // a dialog that was just closed keeps the focus until the next frame
  if (target.closest?.("dialog:not([open])")) return false;
  return (
    target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable], .xterm") !== null
  );
}

// ---- times
function times() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(new Date(time.dateTime));
    if (text && time.textContent !== text) time.textContent = text;
  }
}
times();
setInterval(times, 30000);
document.addEventListener("boxroom:morphed", times);

// ---- the dot in the tab's icon
export function favicon(state) {
  const link = document.getElementById("favicon");
  const known = ["running", "frozen", "stopped", "error", "working"].includes(state);
  const href = `${document.body.dataset.favicons}favicon${known ? `-${state}` : ""}.svg`;
  if (!link.href.endsWith(href)) link.href = href;
}
function dot() {
  const head = document.getElementById("container-head");
  if (head) favicon(head.dataset.state);
}
dot();
document.addEventListener("boxroom:morphed", dot);
document.querySelectorAll(".log").forEach((log) => {
  log.scrollTop = log.scrollHeight;
});

// ---- the tab that is shown is in sight, on a phone too
const tab = document.querySelector(".tabs [aria-current]");
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft - (tab.parentElement.clientWidth - tab.offsetWidth) / 2;

/** Do it when the page has been painted: what comes without being asked for makes nobody wait. */
export function afterPaint(go) {
  if (document.hidden)
    go(); // is not painted
  else requestAnimationFrame(() => setTimeout(go));
}
afterPaint(connect);
