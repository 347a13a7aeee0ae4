/** The host's day in small charts: <figure data-day="cpu_cores" data-of="cpu_limit_cores" data-kind="share">.
 *
 *  kind share: the column as a share of another one; pct: the columns are shares already (several, by spaces). The
 *  figure's canvas shows the last 24 hours with its scale; pointing at it tells the value and the time. */
import { colour } from "./colours.js";
import { heard, now } from "./host_clock.js";
import { bytes, decimal, word } from "./text.js";

const DAY = 86400;
const POINTS = 144;
const EVERY_MS = 300_000;
const COLOURS = ["--chart-cpu", "--chart-memory", "--chart-tx"];
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
let day = null;

async function load() {
  const to = Math.floor(now());
  const answer = await fetch(`/api/v1/host/history?from=${to - DAY}&to=${to}&points=${POINTS}`).catch(() => null);
  if (answer && heard(answer)) return load();
  if (!answer?.ok) return;
  day = await answer.json();
  all();
}

function all() {
  for (const figure of document.querySelectorAll("figure[data-day]")) draw(figure);
}

/** The lines of a figure as shares of 100, each with what is said of one value. */
function lines(figure) {
  const of = figure.dataset.of ? (day.series[figure.dataset.of] ?? []) : null;
  return figure.dataset.day.split(" ").map((column, index) => {
    const values = day.series[column] ?? [];
    return {
      colour: COLOURS[index],
      values: values.map((value, at) => (value == null ? null : of ? (of[at] ? (100 * value) / of[at] : null) : value)),
      exact: (at) => (column.endsWith("_bytes") && values[at] != null ? ` · ${bytes(values[at])}` : ""),
    };
  });
}

const percent = (value) => decimal(`${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0%`);

function draw(figure, pointed = null) {
  const canvas = figure.querySelector("canvas");
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!day || !width) return;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.strokeStyle = colour("--chart-grid");
  for (const part of [0, 0.5, 1]) {
    const y = Math.round(part * (height - 1)) + 0.5;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
  }
  const step = width / Math.max(1, day.count - 1);
  const found = lines(figure);
  found.forEach((line, index) => {
    pen.strokeStyle = pen.fillStyle = colour(line.colour);
    pen.lineWidth = 1.5;
    for (const [first, last] of runs(line.values)) {
      const y = (at) => height - 1 - (Math.min(100, line.values[at]) / 100) * (height - 2);
      pen.beginPath();
      pen.moveTo(first * step, y(first));
      for (let at = first + 1; at <= last; at += 1) pen.lineTo(at * step, y(at));
      if (first === last) pen.lineTo(first * step + 2, y(first));
      pen.stroke();
      if (index) continue;
      pen.lineTo(last * step, height);
      pen.lineTo(first * step, height);
      pen.globalAlpha = 0.12;
      pen.fill();
      pen.globalAlpha = 1;
    }
  });
  const words = figure.querySelector("figcaption span");
  const there = found[0].values.filter((value) => value != null);
  if (pointed === null) {
    const average = there.reduce((total, value) => total + value, 0) / (there.length || 1);
    words.textContent = there.length ? word("dayWords", percent(average), percent(Math.max(...there))) : "";
    return;
  }
  const at = Math.max(0, Math.min(day.count - 1, Math.round(pointed / step)));
  pen.strokeStyle = colour("--muted");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(at * step, 0);
  pen.lineTo(at * step, height);
  pen.stroke();
  const values = found.map((line) => (line.values[at] == null ? "–" : percent(line.values[at]) + line.exact(at)));
  words.textContent = `${CLOCK.format(new Date((day.from + at * day.step_sec) * 1000))} · ${values.join(" / ")}`;
}

/** First and last index of each stretch without a gap. */
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value == null) return;
    const last = found.at(-1);
    if (last && last[1] === at - 1) last[1] = at;
    else found.push([at, at]);
  });
  return found;
}

document.addEventListener("pointermove", (event) => {
  const canvas = event.target.closest?.("figure[data-day] canvas");
  if (canvas) draw(canvas.closest("figure"), event.offsetX);
});
document.addEventListener("pointerout", (event) => {
  const canvas = event.target.closest?.("figure[data-day] canvas");
  if (canvas) draw(canvas.closest("figure"));
});
document.addEventListener("boxroom:morphed", all);
window.addEventListener("resize", all);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
setInterval(() => {
  if (!document.hidden) load();
}, EVERY_MS);
load();
