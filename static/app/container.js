/** A container's page: live numbers, settings that are read first, and going to the list when it is gone. */
import { leave } from "./events.js";
import { draw, watch } from "./sparkline.js";
import { word } from "./text.js";

const name = document.body.dataset.containerPage;
if (name) watch([name]);
else if (document.querySelector("[data-stats-host]")) watch("all");
draw();

document.addEventListener("boxroom:container", (event) => {
  if (event.detail.gone && event.detail.name === name) leave("/containers/");
});
// nobody tells a second time that it is gone
document.addEventListener("boxroom:resync", async () => {
  const header = document.getElementById("container-head")?.dataset.refresh;
  const answer = header && (await fetch(header, { headers: { "HX-Request": "true" } }).catch(() => null));
  if (answer?.status === 404) leave("/containers/");
});

// ---- settings: a pencil on each row, one button that counts
function form() {
  return document.querySelector("[data-settings]");
}

function open(setting, focus) {
  setting.classList.add("editing");
  setting.querySelector("[data-read]").hidden = true;
  setting.querySelector("[data-edit]").hidden = false;
  setting.querySelector("[data-pencil]").hidden = true;
  setting.querySelector("[data-undo]").hidden = false;
  for (const field of setting.querySelectorAll("[data-edit] [name]")) field.disabled = false;
  if (focus) setting.querySelector("[data-input]").focus();
  count();
}

function close(setting) {
  setting.classList.remove("editing");
  setting.querySelector("[data-read]").hidden = false;
  setting.querySelector("[data-edit]").hidden = true;
  setting.querySelector("[data-pencil]").hidden = false;
  setting.querySelector("[data-undo]").hidden = true;
  setting.querySelector("[data-error]")?.remove();
  for (const field of setting.querySelectorAll("[data-edit] [name]")) {
    field.disabled = true;
    if (field.type === "checkbox") field.checked = field.defaultChecked;
    else if (field.tagName === "SELECT")
      field.value = [...field.options].find((o) => o.defaultSelected)?.value ?? field.options[0].value;
    else if (field.type !== "hidden") field.value = field.defaultValue;
  }
  count();
}

function changedFields() {
  return [...form().querySelectorAll("[data-input]:not(:disabled)")].filter((field) => {
    if (field.type === "checkbox") return field.checked !== field.defaultChecked;
    if (field.tagName === "SELECT") return ![...field.selectedOptions][0]?.defaultSelected;
    return field.value !== field.defaultValue;
  });
}

function count() {
  if (!form()) return;
  const bar = form().querySelector("[data-save-bar]");
  const editing = form().querySelector(".editing") !== null;
  const n = changedFields().length;
  bar.hidden = !editing;
  const button = bar.querySelector("[data-save]");
  button.disabled = n === 0;
  button.textContent = n === 1 ? word("saveOne") : word("saveMany", n);
}

document.addEventListener("click", (event) => {
  const setting = event.target.closest?.("[data-setting]");
  if (setting && event.target.closest("[data-pencil]")) open(setting, true);
  if (setting && event.target.closest("[data-undo]")) close(setting);
  if (event.target.closest?.("[data-discard]")) form().querySelectorAll(".editing").forEach(close);
});
document.addEventListener("input", (event) => {
  if (event.target.closest("[data-settings]")) count();
});
document.addEventListener("keydown", (event) => {
  const setting = event.target.closest?.(".setting.editing");
  if (setting && event.key === "Escape") {
    close(setting);
    setting.querySelector("[data-pencil]").focus();
  }
});
// only what was changed is sent
document.body.addEventListener("htmx:configRequest", (event) => {
  if (!event.target.matches("[data-settings]")) return;
  const sent = new Set(changedFields().map((field) => field.name));
  for (const key of [...event.detail.formData.keys()]) {
    const base = key.replace(/_there$|_unit$/, "");
    if (key !== "csrfmiddlewaretoken" && !sent.has(base)) event.detail.formData.delete(key);
  }
});
// an error came back: the edits are put back where they were
let kept = new Map();
document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-settings]"))
    kept = new Map(changedFields().map((f) => [f.name, f.type === "checkbox" ? f.checked : f.value]));
});
document.body.addEventListener("htmx:afterSwap", () => {
  const settings = form();
  if (!settings?.querySelector("[data-error], .notice-error")) {
    if (settings) count();
    return;
  }
  for (const [field, value] of kept) {
    const input = settings.querySelector(`[data-input][name="${CSS.escape(field)}"]`);
    if (!input) continue;
    open(input.closest("[data-setting]"), false);
    if (input.type === "checkbox") input.checked = value;
    else input.value = value;
  }
  settings.querySelector("[data-error]")?.closest("[data-setting]")?.querySelector("[data-input]")?.focus();
  count();
});
document.body.addEventListener("boxroom:changed", (event) => {
  if ("settings" in event.detail && form()) form().querySelectorAll(".editing").forEach(close);
});
window.addEventListener("beforeunload", (event) => {
  if (form() && changedFields().length) event.preventDefault();
});
