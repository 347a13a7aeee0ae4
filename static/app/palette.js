/** Ctrl-K: go to a container or a page, or do something to a container. */
import { word } from "./text.js";

const dialog = document.getElementById("palette");
const input = dialog?.querySelector("input");
const list = dialog?.querySelector("ul");
let items = [];
let shown = [];
let at = 0;

export async function openPalette() {
  if (!dialog || dialog.open) return;
  dialog.showModal();
  input.value = "";
  show();
  const answer = await fetch(document.body.dataset.palette).catch(() => null);
  if (answer?.ok) {
    ({ items } = await answer.json());
    show();
  }
}

function show() {
  const parts = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = items.filter((item) => parts.every((part) => item.text.toLowerCase().includes(part))).slice(0, 30);
  at = Math.min(at, Math.max(0, shown.length - 1));
  list.replaceChildren(...(shown.length ? shown.map(line) : [nothing()]));
  input.setAttribute("aria-activedescendant", shown.length ? `palette-${at}` : "");
}

function nothing() {
  const row = document.createElement("li");
  row.className = "muted";
  row.setAttribute("role", "option");
  row.setAttribute("aria-disabled", "true");
  row.textContent = word("nothing");
  return row;
}

function line(item, index) {
  const row = document.createElement("li");
  row.id = `palette-${index}`;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", String(index === at));
  row.append(item.text);
  if (item.hint) {
    const hint = document.createElement("span");
    hint.className = "muted small right";
    hint.textContent = item.hint;
    row.append(hint);
  }
  row.onclick = () => run(item);
  return row;
}

function run(item) {
  dialog.close();
  if (item.href) location.assign(item.href);
  else window.htmx.ajax("POST", item.post, { swap: "none", source: document.body });
}

if (dialog) {
  input.addEventListener("input", () => {
    at = 0;
    show();
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && shown.length) {
      at = (at + step + shown.length) % shown.length;
      show();
      list.children[at]?.scrollIntoView({ block: "nearest" });
      event.preventDefault();
    } else if (event.key === "Enter" && shown[at]) {
      event.preventDefault();
      run(shown[at]);
    }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
