/** Which rows of the list are chosen, and the bar of what can be done to all of them. */
import { word } from "./text.js";

const chosen = new Set();
let all = false;

/** The list; null where there is none. */
export const list = () => document.getElementById("list");

/** Whether any row is chosen. */
export const some = () => all || chosen.size > 0;

/** Tick the boxes of the rows in a place that are chosen. */
export function check(place) {
  for (const box of place.querySelectorAll("[data-check]"))
    box.checked = all || chosen.has(box.closest("tr").dataset.name);
}

const bar = document.getElementById("bulk");
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-check]")) {
    const { name } = event.target.closest("tr").dataset;
    if (all) {
      all = false;
      chosen.clear();
      list()
        .querySelectorAll("[data-check]:checked")
        .forEach((box) => chosen.add(box.closest("tr").dataset.name));
    }
    if (event.target.checked) chosen.add(name);
    else chosen.delete(name);
    showBar();
  }
  if (event.target.matches("[data-check-all]")) {
    all = false;
    for (const box of list().querySelectorAll("[data-check]")) {
      box.checked = event.target.checked;
      const { name } = box.closest("tr").dataset;
      if (box.checked) chosen.add(name);
      else chosen.delete(name);
    }
    if (!event.target.checked) chosen.clear();
    showBar();
  }
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.("[data-bulk-none]")) none();
  if (event.target.closest?.("[data-bulk-all]")) {
    all = true;
    check(list());
    showBar();
  }
  const button = event.target.closest?.("[data-bulk]");
  if (!button) return;
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const values = { ...query, action: button.dataset.bulk, names: [...chosen].join(",") };
  if (all) values.all = "1";
  window.htmx.ajax("POST", "/containers/_bulk", { target: "#dialog", swap: "innerHTML", values });
});
document.body.addEventListener("boxroom:close", (event) => {
  if (event.target.closest("#dialog")) none();
});

/** Choose none. */
export function none() {
  all = false;
  chosen.clear();
  list()
    ?.querySelectorAll("[data-check], [data-check-all]")
    .forEach((box) => {
      box.checked = false;
    });
  showBar();
}

function showBar() {
  if (!bar) return;
  const total = Number(list().dataset.total);
  const count = all ? total : chosen.size;
  bar.hidden = count === 0;
  document.getElementById("toolbar").hidden = count > 0;
  bar.querySelector("[data-bulk-count]").textContent = word("selected", count);
  const more = bar.querySelector("[data-bulk-all]");
  more.hidden = all || chosen.size >= total;
}
