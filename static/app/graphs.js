/** The graphs of one container: <div id="graphs" data-container="NAME">. The last hour at once, then live.
 *  Those of the host: data-history names where its history is, data-charts which charts it has.
 *
 *  The address says what is shown: ?range=6h, or ?from=…&to=… (Unix seconds) after a drag over a part. */
import { Chart } from "./graph_chart.js";
import { specs, word } from "./graph_specs.js";
import { heard, moved, now } from "./host_clock.js";

const RANGES = {
  "15min": 900,
  "1h": 3600,
  "6h": 21600,
  "1d": 86400,
  "7d": 7 * 86400,
  "30d": 30 * 86400,
  "1y": 365 * 86400,
};
const DEFAULT = "1h";
const LIVE_STEP_MAX_SEC = 10;
const AGAIN_MS = 2000;
const root = document.getElementById("graphs");
const name = root.dataset.container;
const address = root.dataset.history ?? `/api/v1/containers/${encodeURIComponent(name)}/history`;

/** What is shown: either a range that ends now, or a fixed part. */
let view = fromAddress();
let data = null;
let counted = 0;
let loading = null;
let timer = null;
let asked = 0;

function fromAddress() {
  const query = new URLSearchParams(location.search);
  const from = Number(query.get("from"));
  const to = Number(query.get("to"));
  if (from > 0 && to > from) return { from, to };
  return { range: query.get("range") in RANGES ? query.get("range") : DEFAULT };
}

function look(next, { push = true } = {}) {
  view = next;
  if (push) {
    const query = view.range ? { range: view.range } : { from: Math.floor(view.from), to: Math.ceil(view.to) };
    history.pushState(null, "", `?${new URLSearchParams(query)}`);
  }
  for (const button of bar.querySelectorAll("[data-range]"))
    button.setAttribute("aria-pressed", String(button.dataset.range === view.range));
  reset.hidden = Boolean(view.range);
  load();
}

function span() {
  const to = now();
  return view.range ? { from: to - RANGES[view.range], to } : view;
}

async function load() {
  loading?.abort();
  loading = new AbortController();
  clearTimeout(timer);
  const { from, to } = span();
  const points = Math.min(1200, Math.max(200, root.clientWidth));
  const query = new URLSearchParams({ from: Math.floor(from), to: Math.ceil(to), points });
  let found;
  try {
    const answer = await fetch(`${address}?${query}`, {
      signal: loading.signal,
      headers: { Accept: "application/json" },
    });
    if (heard(answer) && view.range) return load();
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).message ?? answer.statusText);
    found = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") return;
    tell(error.message || word("failed", "The measurements could not be read."));
    timer = setTimeout(load, 3000);
    return;
  }
  take(found, from, to);
  const seconds = Math.max(found.step_sec, 30);
  if (view.range && !live()) timer = setTimeout(load, seconds * 1000);
}

function take(found, from, to) {
  const times = Array.from({ length: found.count }, (_value, index) => found.from + index * found.step_sec);
  const limits = found.limits ?? {};
  const series = found.series;
  const flat = (value) => new Array(times.length).fill(value ?? null);
  series.pids_limit = flat(limits.pids);
  series.disk_limit_bytes = flat(limits.disk_bytes);
  counted = 0;
  data = {
    times,
    series,
    from,
    to,
    step: found.step_sec,
    cpus: found.cpus,
    limits,
    events: (found.events ?? []).map(marker),
  };
  const empty = !series.memory_bytes?.some((value) => value != null);
  tell(empty ? word("nothing", "Nothing was measured in this time: the container did not run.") : "");
  draw();
}

function marker(event) {
  const colours = { oom: "--error", error: "--error", running: "--running", frozen: "--frozen" };
  const time = new Date(event.at * 1000).toLocaleString();
  const what = event.new ? `${event.old} → ${event.new}` : event.kind;
  const why = [event.reason, event.actor].filter(Boolean).join(", ");
  return {
    at: event.at,
    kind: event.kind,
    colour: colours[event.kind] ?? colours[event.new] ?? "--muted",
    text: `${time}: ${what}${why ? ` (${why})` : ""}`,
  };
}

function draw() {
  if (!data) return;
  for (const chart of charts) {
    const wanted =
      !chart.spec.optional || chart.spec.optional.some((column) => data.series[column]?.some((value) => value != null));
    chart.root.hidden = !wanted;
    if (wanted) chart.show(data);
  }
}

function live() {
  return view.range && data && data.step <= LIVE_STEP_MAX_SEC && RANGES[view.range] <= 21600;
}

/** Add one second to what is shown: into the present step, or as a new one. */
function add(at, sample) {
  const psi = sample.psi_pct ?? [null, null, null];
  const values = {
    ...sample,
    cpu_cores: sample.cpu_pct == null ? null : sample.cpu_pct / 100,
    cpu_cores_max: sample.cpu_pct == null ? null : sample.cpu_pct / 100,
    memory_bytes_max: sample.memory_bytes,
    psi_cpu_pct: psi[0],
    psi_memory_pct: psi[1],
    psi_io_pct: psi[2],
    pids_limit: data.limits.pids,
    disk_limit_bytes: data.limits.disk_bytes,
  };
  const { times, series, step } = data;
  const begin = Math.floor(at / step) * step;
  if (times.length && begin < times.at(-1)) return;
  const fresh = !times.length || begin > times.at(-1);
  if (fresh) {
    // what was missed meanwhile stays a gap
    if (times.length && begin > times.at(-1) + step) push(times.at(-1) + step, () => null);
    push(begin, (column) => values[column] ?? null);
    counted = 1;
  } else {
    for (const column of Object.keys(series))
      series[column][times.length - 1] = merged(column, series[column].at(-1), values[column]);
    counted += 1;
  }
  const first = now() - RANGES[view.range];
  while (times.length && times[0] < first - step) {
    times.shift();
    for (const column of Object.keys(series)) series[column].shift();
  }
  data.from = first;
  data.to = now();
}

function push(time, value) {
  data.times.push(time);
  for (const column of Object.keys(data.series)) data.series[column].push(value(column));
}

function merged(column, before, now) {
  if (now == null) return before;
  if (before == null || column.includes("_limit")) return now;
  if (column.endsWith("_max")) return Math.max(before, now);
  return before + (now - before) / (counted + 1);
}

/** A clock was set, here or there, or this message has waited long: the answer to the next question says which. */
function reload() {
  if (Date.now() - asked < AGAIN_MS && Date.now() >= asked) return;
  asked = Date.now();
  load();
}

function tell(text) {
  note.textContent = text;
  note.hidden = !text;
}

/** The host's sample as a container's: its limit is what there is. */
function ofHost(sample) {
  return (
    sample && {
      ...sample,
      cpu_pct: sample.cpu_pct == null ? null : sample.cpu_pct * sample.cpus,
      cpu_limit_cores: sample.cpus,
    }
  );
}

/** Samples as they come; after a gap the history is read again. */
let attempt = 0;
let lost = false;
function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws/stats`);
  socket.onopen = () => {
    attempt = 0;
    socket.send(JSON.stringify({ type: "subscribe", containers: name ? [name] : [] }));
    if (lost) load();
    lost = false;
  };
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    const sample = name ? message.containers?.[name] : ofHost(message.host);
    if (message.type !== "stats" || !live() || document.hidden) return;
    const at = typeof message.at === "number" ? message.at : Date.parse(message.at) / 1000;
    if (moved(at)) return reload();
    if (sample) add(at, sample);
    else {
      data.from = at - RANGES[view.range];
      data.to = at;
    }
    requestAnimationFrame(draw);
  };
  socket.onclose = (event) => {
    lost = true;
    attempt += 1;
    if (event.code !== 4401 && event.code !== 4403)
      setTimeout(connect, Math.min(500 * 2 ** attempt, attempt < 20 ? 2000 : 10000));
  };
}

function button(text, attributes, click) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "btn btn-sm";
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.addEventListener("click", click);
  return made;
}

function pan(direction) {
  const { from, to } = span();
  const shift = ((to - from) / 2) * direction;
  const end = Math.min(to + shift, now());
  look({ from: end - (to - from), to: end });
}

const bar = document.createElement("div");
bar.className = "graph-bar";
bar.setAttribute("role", "toolbar");
for (const range of Object.keys(RANGES)) {
  bar.append(
    button(word(`range${range}`, range.replace(/(\d+)/, "$1 ")), { "data-range": range }, () => look({ range })),
  );
}
const reset = button(word("reset", "Show the last hour"), { "data-reset": "" }, () => look({ range: DEFAULT }));
bar.append(
  button("‹", { "aria-label": word("earlier", "Earlier"), title: word("earlier", "Earlier") }, () => pan(-1)),
  button("›", { "aria-label": word("later", "Later"), title: word("later", "Later") }, () => pan(1)),
  reset,
);
const clock = document.createElement("time");
clock.className = "graph-time muted";
bar.append(clock);
const hovered = (at) => {
  clock.textContent = at == null ? "" : new Date(at * 1000).toLocaleString();
};
const note = document.createElement("p");
note.className = "graph-note muted";
note.setAttribute("role", "status");
note.hidden = true;
root.replaceChildren(bar, note);
const chosen = root.dataset.charts?.split(" ");
const zoom = (from, to) => {
  if (to - from >= 5) look({ from, to });
};
const charts = specs(!name)
  .filter((spec) => !chosen || chosen.includes(spec.id))
  .map((spec) => new Chart(root, spec, zoom, hovered));

const repaint = () => charts.forEach((chart) => chart.rebuild());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
new MutationObserver(repaint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
addEventListener("popstate", () => look(fromAddress(), { push: false }));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && view.range) load();
});
// something happened to the container: its mark is in the history
let again = null;
document.addEventListener("boxroom:container", (event) => {
  if (event.detail.name !== name || !view.range) return;
  clearTimeout(again);
  again = setTimeout(load, 700);
});
look(view, { push: false });
connect();
