/** Refreshes exactly the parts of the page whose object changed.
 *
 *  A part names its topics (data-topic="container:web-1 operation") and where its new HTML is (data-refresh);
 *  data-select picks a part out of a whole page, data-slow waits longer, data-keep-edits leaves a form alone that is
 *  being edited. */
const AGAIN_MS = 500;
const AGAIN_MAX_MS = 2000;
const TRIES = 20;
const waiting = new Map();
const running = new Set();
const lastAt = new Map();

/** Ask for every part with one of the topics to be refreshed; "container" also stands for all container:NAME. */
export function refresh(...topics) {
  for (const part of document.querySelectorAll("[data-topic]")) {
    const own = part.dataset.topic.split(" ");
    if (topics.some((topic) => own.includes(topic))) schedule(part);
  }
}

function schedule(part) {
  const url = part.dataset.refresh;
  if (waiting.has(url)) return;
  const gap = "slow" in part.dataset ? 1000 : 150;
  // by a clock that nobody sets
  const wait = Math.max(20, (lastAt.get(url) ?? -Infinity) + gap - performance.now());
  waiting.set(url, setTimeout(take, wait, url));
}

/** Never two at once: an older answer must not undo what a newer one said. What did not come is asked for again: nobody
 *  tells of the same change twice. */
async function take(url, failed = 0) {
  waiting.delete(url);
  if (running.has(url)) {
    waiting.set(url, setTimeout(take, 50, url, failed));
    return;
  }
  running.add(url);
  lastAt.set(url, performance.now());
  const came = await fetchParts(url)
    .catch(() => false)
    .finally(() => running.delete(url));
  if (came || waiting.has(url) || failed === TRIES) return;
  waiting.set(url, setTimeout(take, Math.min(AGAIN_MS * 2 ** failed, AGAIN_MAX_MS), url, failed + 1));
}

/** Returns whether there was an answer that counts, be it a refusal. */
async function fetchParts(url) {
  if (!document.querySelector(`[data-refresh="${CSS.escape(url)}"]`)) return true;
  const answer = await fetch(url, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(30000) }).catch(
    () => null,
  );
  if (!answer || answer.status >= 500) return false;
  if (!answer.ok) return true;
  const html = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll(`[data-refresh="${CSS.escape(url)}"]`)) {
    if ("keepEdits" in part.dataset && edited(part)) continue;
    const fresh = html.querySelector(part.dataset.select ?? `#${CSS.escape(part.id)}`);
    if (fresh) morph(part, fresh);
  }
  return true;
}

/** Whether somebody is filling in one of a part's forms, or is being told what is wrong with what he sent. */
function edited(part) {
  if ("sent" in part.dataset) return false;
  if (part.querySelector("[data-input]:not(:disabled), [role=alert]")) return true;
  return [...part.querySelectorAll("input, textarea, select")].some((field) => {
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    if (field.tagName !== "SELECT") return field.type !== "hidden" && field.value !== field.defaultValue;
    return (
      field.selectedIndex !==
      Math.max(
        0,
        [...field.options].findIndex((option) => option.defaultSelected),
      )
    );
  });
}

// what was sent is not being filled in any more; an answer that finds something wrong puts a new part there
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.target.closest?.("[data-keep-edits]");
  if (part) part.dataset.sent = "";
});
document.addEventListener("htmx:afterRequest", (event) => {
  const part = event.detail.failed && event.target.closest?.("[data-keep-edits]");
  if (part) delete part.dataset.sent;
});

/** Change an element into another in place: focus, scroll and drawn canvases stay. */
export function morph(old, fresh) {
  const log = old.querySelector(".log");
  const atEnd = log && log.scrollTop + log.clientHeight > log.scrollHeight - 30;
  const made = window.Idiomorph.morph(old, fresh, {
    morphStyle: "outerHTML",
    // a button that was clicked does change
    ignoreActiveValue: document.activeElement?.matches("input, textarea, select"),
    callbacks: {
      beforeAttributeUpdated: (name, node, kind) => !(node.tagName === "DETAILS" && name === "open"),
      beforeNodeMorphed: (from, to) => {
        if (from.nodeType !== 1) return true;
        if (from.tagName === "CANVAS") return false;
        if (
          from.dataset.stat &&
          to.dataset?.stat === from.dataset.stat &&
          from.dataset.container === to.dataset.container
        )
          return false;
        return true;
      },
    },
  });
  const node = made?.[0] ?? old;
  window.htmx?.process(node);
  const grown = node.querySelector?.(".log");
  if (grown && (atEnd || !log)) grown.scrollTop = grown.scrollHeight;
  document.dispatchEvent(new CustomEvent("boxroom:morphed", { detail: node }));
}
