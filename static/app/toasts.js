/** Short messages in the corner; errors stay until they are closed. */
import { word } from "./text.js";

export function toast(level, text, href) {
  const box = document.createElement("div");
  box.className = `toast toast-${level}`;
  const line = document.createElement("span");
  if (href) {
    const link = document.createElement("a");
    link.href = href;
    link.textContent = text;
    line.append(link);
  } else line.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "btn btn-icon btn-sm";
  close.setAttribute("aria-label", word("close"));
  close.textContent = "✕";
  close.onclick = () => box.remove();
  box.append(line, close);
  const all = document.getElementById("toasts");
  all.append(box);
  while (all.children.length > 4) all.firstChild.remove();
  if (level !== "error") setTimeout(() => box.remove(), 6000);
}
