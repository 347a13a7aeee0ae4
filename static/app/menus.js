/** Menus that open from a button. A click elsewhere closes them, and so do Esc and the focus going elsewhere; arrows go
 *  through what they hold. */

const shown = () => document.querySelectorAll("details.menu[open]");

document.addEventListener(
  "click",
  (event) => {
    const chosen = event.target.closest(".menu-items .btn");
    for (const menu of shown()) {
      if (menu.contains(chosen)) menu.querySelector("summary").focus(); // where a dialog gives the focus back to
      if (!menu.contains(event.target) || chosen) menu.open = false;
    }
  },
  true,
);

document.addEventListener("focusin", (event) => {
  for (const menu of shown()) if (!menu.contains(event.target)) menu.open = false;
});

document.addEventListener(
  "keydown",
  (event) => {
    const [menu] = shown();
    if (!menu || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      menu.open = false;
      menu.querySelector("summary").focus();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && menu.contains(event.target)) {
      const stops = [...menu.querySelectorAll(".menu-items :is(a, button, input)")].filter((one) => one.offsetParent);
      const at = stops.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1);
      stops[(Math.max(at, -1) + stops.length) % stops.length]?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // the page's own keys mean something else by them
  },
  true,
);
