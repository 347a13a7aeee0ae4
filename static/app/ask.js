/** A question in the house's own dialog. */
import { word } from "./text.js";

/** Show a question with its buttons. choices: [words, what to do, class], the last one on the right; to cancel does
 *  nothing. */
export function ask(title, question, choices) {
  const dialog = document.getElementById("dialog");
  const make = (tag, className, text = "") =>
    Object.assign(document.createElement(tag), { className, textContent: text });
  const head = make("div", "dialog-head");
  const body = make("div", "dialog-body");
  const foot = make("div", "dialog-foot");
  const heading = make("h2", "", title);
  heading.id = "dialog-title";
  head.append(heading);
  body.append(make("p", "", question));
  const buttons = [[word("cancel"), null, ""], ...choices].map(([text, act, kind]) => {
    const button = make("button", `btn ${kind}`, text);
    button.type = "button";
    button.addEventListener("click", () => {
      dialog.close();
      act?.();
    });
    return button;
  });
  foot.append(...buttons);
  dialog.replaceChildren(head, body, foot);
  dialog.showModal();
  buttons[0].focus();
}
