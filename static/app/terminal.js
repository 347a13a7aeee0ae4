/* The terminal tab: a thin bar (sessions, search, font size, full screen, who else is here) and the terminal itself.

   Which sessions are open stands in sessionStorage, so a reload comes back to the same shells; the one in front stands
   in the address (#session=ID), so a link leads a colleague to it. */
import { ask } from "./ask.js";
import { Session } from "./terminal_session.js";
import { word } from "./text.js";

const root = document.getElementById("terminal");
const container = root.dataset.container;
const store = `boxroom.terminals.${container}`;
const FONT = { least: 9, most: 28, normal: 14 };
const KEYS = [
  ["Esc", "\x1b"],
  ["Tab", "\t"],
  ["Ctrl", null],
  ["←", "\x1b[D"],
  ["↑", "\x1b[A"],
  ["↓", "\x1b[B"],
  ["→", "\x1b[C"],
  ["|", "|"],
  ["/", "/"],
  ["-", "-"],
  ["~", "~"],
];

let fontSize = Number(localStorage.getItem("boxroom.terminal.font")) || FONT.normal;
let accessible = localStorage.getItem("boxroom.terminal.accessible") === "1";
let front = null;
const sessions = [];
const consoles = (root.dataset.consoles ?? "").split(" ").filter(Boolean);

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** One icon of the panel's sprite. */
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon icon-sm");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${root.dataset.icons}#${name}`);
  svg.append(use);
  return svg;
}

const button = (label, text, onclick, extra = {}) =>
  make(
    "button",
    { type: "button", class: "terminal-button", "aria-label": label, title: label, onclick, ...extra },
    text,
  );
const tabs = make("div", { class: "terminal-tabs", role: "group", "aria-label": word("terminals") });
const others = make("select", {
  class: "terminal-others",
  "aria-label": word("otherTerminalsLabel"),
  title: word("otherTerminalsLabel"),
  hidden: true,
});
const people = make("span", { class: "terminal-people" });
const find = make("input", {
  class: "terminal-find",
  type: "search",
  placeholder: word("find"),
  "aria-label": word("find"),
  title: word("findKeys"),
  hidden: true,
});
const found = make("span", { class: "terminal-found", "aria-live": "polite" });
const place = make("div", { class: "terminal-place" });
const keys = make("div", { class: "terminal-keys", role: "toolbar", "aria-label": word("keys") });
const reader = button(word("screenReader"), icon("accessible"), toggleReader, { "aria-pressed": String(accessible) });
const choice = make(
  "select",
  { class: "terminal-choice", "aria-label": word("consoles"), title: word("consoles"), onchange: sitDown },
  make("option", { value: "" }, word("consoles")),
  ...consoles.map((name) => make("option", { value: name }, `/dev/${name}`)),
);
const bar = make(
  "div",
  { class: "terminal-bar" },
  tabs,
  button(word("newTerminal"), icon("plus"), () => open(null)),
  choice,
  others,
  make("span", { class: "terminal-space" }),
  people,
  find,
  found,
  button(word("find"), icon("search"), () => showFind(find.hidden), { title: `${word("find")} (Ctrl Shift F)` }),
  button(word("smaller"), icon("text-decrease"), () => setFont(fontSize - 1)),
  button(word("larger"), icon("text-increase"), () => setFont(fontSize + 1)),
  reader,
  ...(navigator.clipboard?.readText
    ? [
        button(word("paste"), icon("clipboard"), () => front?.session.paste(), {
          title: `${word("paste")} (Ctrl Shift V)`,
        }),
      ]
    : []),
  button(word("fullScreen"), icon("arrows-maximize"), fullScreen),
);

function save() {
  const ids = sessions.map((one) => one.session.id).filter(Boolean);
  sessionStorage.setItem(store, JSON.stringify(ids));
  const id = front?.session.id;
  if (id) history.replaceState(null, "", `#session=${id}`);
}

function open(id, orNew = false) {
  const pane = make("div", { class: "terminal-pane" });
  place.append(pane);
  const one = { pane, number: sessions.length + 1 };
  sessions.push(one);
  show(one); // a hidden element has no size to fit to
  one.session = new Session(pane, { container, id, orNew, fontSize, accessible });
  one.session.addEventListener("change", () => {
    save();
    draw();
  });
  one.used = Boolean(id);
  for (const kind of ["keydown", "input", "paste"])
    pane.addEventListener(
      kind,
      () => {
        one.used = true;
      },
      { capture: true, once: true },
    ); // and not what xterm.js answers to the shell
  one.session.addEventListener("find", () => showFind(true));
  one.session.addEventListener("leave", () => tabs.querySelector("[aria-pressed=true]")?.focus());
  one.session.search.onDidChangeResults(({ resultIndex, resultCount }) => {
    found.textContent = find.value ? `${resultCount ? resultIndex + 1 : 0}/${resultCount}` : "";
  });
  one.session.term.onTitleChange((title) => {
    one.title = title.slice(0, 40);
    draw();
  });
  draw();
  one.session.term.focus();
}

function show(one) {
  front = one;
  for (const other of sessions) other.pane.hidden = other !== one;
  one.session?.refit();
  one.session?.term.focus();
  if (one.session) save();
  draw();
}

/** Open the console that was chosen, or go to where it is open already. */
function sitDown() {
  const name = choice.value;
  choice.value = "";
  if (!name) return;
  const there = sessions.find((one) => one.session.console === name);
  if (there) show(there);
  else open(name);
}

/** An ended shell is just put away, and so is one in which nobody typed; any other may end, or run on without a tab. */
function close(one) {
  if (!one.session.live || !one.used || one.session.console) {
    leave(one, true);
    return;
  }
  const label = one.title || word("terminalNumber", one.number);
  ask(word("closeTerminalTitle", label), word("closeTerminal"), [
    [word("keepTerminal"), () => leave(one, false), ""],
    [word("endTerminal"), () => leave(one, true), "btn-danger"],
  ]);
}

/** Put a tab away. end: its shell too. */
function leave(one, end) {
  if (end) one.session.end();
  one.session.close();
  one.pane.remove();
  sessions.splice(sessions.indexOf(one), 1);
  if (sessions.length) show(sessions[sessions.length - 1]);
  else open(null);
  save();
  listOthers();
}

/** Shells that run here without a tab: left running, or somebody else's. */
async function listOthers() {
  const answer = await fetch(`/api/v1/containers/${container}/sessions`).catch(() => null);
  const items = answer?.ok ? (await answer.json()).items : [];
  const here = new Set(sessions.map((one) => one.session?.id));
  const free = items.filter((item) => !item.ended && !here.has(item.session) && /^[0-9a-f]{16}$/.test(item.session));
  const words = ({ user, command, created_at: at }) =>
    [
      user,
      (command ?? []).join(" ").slice(0, 40),
      new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }),
    ].join(" · ");
  others.replaceChildren(
    make("option", { value: "" }, word("otherTerminals", free.length)),
    ...free.map((item) => make("option", { value: item.session }, words(item))),
  );
  others.hidden = !free.length;
}

/** The tab of a session as it is now. Its elements stay: one that goes while it is pressed is not clicked. */
function dress(one) {
  one.tab ??= make("button", { type: "button", class: "terminal-tab", onclick: () => show(one) });
  one.away ??= make("button", { type: "button", class: "terminal-close", onclick: () => close(one) }, "×");
  one.box ??= make("span", { class: "terminal-tab-box" }, one.tab);
  const state = one.session?.ended ? "ended" : one.session?.live ? "live" : "waiting";
  const label = one.session?.console ? `/dev/${one.session.console}` : one.title || word("terminalNumber", one.number);
  one.tab.setAttribute("aria-pressed", String(one === front));
  one.tab.dataset.state = state;
  one.tab.title = word({ live: "terminalLive", waiting: "terminalWaiting", ended: "terminalEnded" }[state]);
  if (one.tab.textContent !== label) one.tab.textContent = label;
  one.away.setAttribute("aria-label", word("closeNamed", label));
  if (sessions.length < 2) one.away.remove();
  else if (one.away.parentNode !== one.box) one.box.append(one.away);
}

function draw() {
  for (const one of sessions) dress(one);
  const boxes = sessions.map((one) => one.box);
  if (boxes.length !== tabs.childElementCount || boxes.some((box, at) => box !== tabs.children[at])) {
    const held = [...tabs.querySelectorAll("button")].indexOf(document.activeElement);
    tabs.replaceChildren(...boxes);
    if (held >= 0) tabs.querySelectorAll("button")[held]?.focus();
  }
  const others = (front?.session?.viewers ?? []).map((viewer) => viewer.user);
  const own = others.indexOf(document.body.dataset.user);
  if (own >= 0) others.splice(own, 1); // who looks from a second window is there twice
  people.textContent = others.length ? word("alsoHere", [...new Set(others)].join(", ")) : "";
  root.dataset.state = front?.session?.live ? "live" : front?.session?.ended ? "ended" : "waiting";
  root.classList.toggle("empty", !sessions.length);
}

function setFont(size) {
  fontSize = Math.max(FONT.least, Math.min(FONT.most, size));
  localStorage.setItem("boxroom.terminal.font", fontSize);
  for (const one of sessions) one.session.setFontSize(fontSize);
}

function toggleReader() {
  accessible = !accessible;
  localStorage.setItem("boxroom.terminal.accessible", accessible ? "1" : "0");
  reader.setAttribute("aria-pressed", String(accessible));
  for (const one of sessions) one.session.setAccessible(accessible);
}

function showFind(on) {
  find.hidden = !on;
  found.textContent = "";
  if (on) find.focus();
  else {
    front?.session.search.clearDecorations();
    front?.session.term.focus();
  }
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen().catch(() => {});
}

function pressKey(text) {
  if (front) front.used = true;
  front?.session.typed(new TextEncoder().encode(text));
  front?.session.term.focus();
}

/** Ctrl on a phone: it holds for the next letter that is typed. */
function holdControl(node) {
  const held = node.getAttribute("aria-pressed") !== "true";
  node.setAttribute("aria-pressed", String(held));
  if (!front) return;
  const session = front.session;
  session.modifier = held
    ? (bytes) => {
        session.modifier = null;
        node.setAttribute("aria-pressed", "false");
        const code = bytes.length === 1 ? String.fromCharCode(bytes[0]).toUpperCase().charCodeAt(0) : 0;
        return code >= 64 && code < 96 ? new Uint8Array([code & 31]) : bytes;
      }
    : null;
  session.term.focus();
}

const MATCHES = {
  decorations: {
    matchOverviewRuler: "#f2c866",
    activeMatchColorOverviewRuler: "#ff8a80",
    matchBackground: "#5a4a1c",
    activeMatchBackground: "#8a6a10",
  },
};
find.addEventListener("input", () => front?.session.search.findPrevious(find.value, { ...MATCHES, incremental: true }));
find.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.stopPropagation();
    showFind(false);
  }
  if (event.key !== "Enter" || !front) return;
  if (event.shiftKey) front.session.search.findNext(find.value, MATCHES);
  else front.session.search.findPrevious(find.value, MATCHES); // what was printed last is what is looked for first
});

for (const [label, text] of KEYS) {
  const node = button(label, label, () => (text === null ? holdControl(node) : pressKey(text)));
  if (text === null) node.setAttribute("aria-pressed", "false");
  node.addEventListener("pointerdown", (event) => event.preventDefault()); // keep the keyboard open
  keys.append(node);
}

/** Open what was open here, or a first shell; a container that does not run has nothing to open. */
function begin() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("session");
  let known = [];
  try {
    known = JSON.parse(sessionStorage.getItem(store) ?? "[]");
  } catch {
    known = [];
  }
  const ids = [...new Set([...known, ...(asked ? [asked] : [])])].filter((id) => /^[\w-]{1,64}$/.test(id));
  const status = cover.dataset.status;
  if (status === "running" || (status === "frozen" && ids.length)) {
    ids.forEach((id, index) => open(id, index === ids.length - 1 && known.includes(id)));
    if (!ids.length) open(null);
  }
  const wanted = sessions.find((one) => one.session.id === asked);
  if (wanted) show(wanted);
  draw();
}

/** The container's state changed: when it was started again, so are the terminals. */
function follow() {
  if (cover.dataset.status !== "running") return;
  if (!sessions.length) begin();
  else if (cover.dataset.run !== run) {
    for (const one of sessions) one.session.renew();
    if (!document.querySelector("dialog[open]")) front.session.term.focus(); // whoever pressed Start goes on typing
  }
  run = cover.dataset.run;
}

const cover = document.getElementById("terminal-state");
let run = cover?.dataset.run;
if (cover) {
  root.append(bar, cover, place, keys);
  root.front = () => front?.session;
  document.addEventListener("boxroom:morphed", (event) => {
    if (event.detail === cover) follow();
  });
  begin();
  others.addEventListener("change", () => {
    if (others.value) open(others.value);
    listOthers();
  });
  listOthers();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) listOthers();
  });
  addEventListener("pagehide", save);
}
