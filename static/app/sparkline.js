/** Live numbers and small lines in lists and tiles, fed by /ws/stats.
 *
 *  An element with data-stat="FIELD" data-container="NAME" shows a field of the newest sample, data-host="FIELD" one of
 *  the host's, data-host-meter fills a <progress>; a canvas with data-spark="KIND" data-container="NAME" (or
 *  data-spark-host="FIELD") draws the last minute, which the socket tells at once. */
import { colour } from "./colours.js";
import { bytes, decimal, word } from "./text.js";

const LENGTH = 60;
const ASKED_MAX = 100;
const samples = new Map();
const latest = new Map();
const asked = new Set();
const PER_SECOND = {
  network_rx_rate: "network_rx_bytes_per_sec",
  network_tx_rate: "network_tx_bytes_per_sec",
  disk_read_rate: "disk_read_bytes_per_sec",
  disk_write_rate: "disk_write_bytes_per_sec",
};
const LINES = {
  cpu: [["cpu_share_pct", "--chart-cpu"]],
  memory: [["memory_bytes", "--chart-memory"]],
  network: [
    ["network_rx_rate", "--chart-rx"],
    ["network_tx_rate", "--chart-tx"],
  ],
  disk: [
    ["disk_read_rate", "--chart-rx"],
    ["disk_write_rate", "--chart-tx"],
  ],
  processes: [["processes", "--chart-cpu"]],
};
/** The least height of a line's scale, so that a sleeping container does not look busy. */
const LEAST = { cpu: 10, host: 10, memory: 2 ** 20, network: 2048, disk: 4096, processes: 10 };
let socket = null;
let attempt = 0;
let wanted = null;
let cpus = 0;

/** Subscribe to the samples of some containers, or of "all", with the minute before. */
export function watch(containers) {
  const same = wanted !== null && String(wanted) === String(containers);
  wanted = containers;
  if (socket?.readyState === WebSocket.OPEN) {
    if (!same) subscribe();
  } else if (!socket) open();
}

function subscribe() {
  socket.send(JSON.stringify({ type: "subscribe", containers: wanted }));
  const fresh = wanted === "all" ? [] : wanted.filter((name) => !asked.has(name));
  if (!fresh.length && asked.has("")) return;
  for (let from = 0; from === 0 || from < fresh.length; from += ASKED_MAX) {
    socket.send(JSON.stringify({ type: "recent", containers: fresh.slice(from, from + ASKED_MAX), seconds: LENGTH }));
  }
  for (const name of [...fresh, ""]) asked.add(name);
}

function open() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws/stats`);
  socket.onopen = () => {
    attempt = 0;
    asked.clear();
    subscribe();
  };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = (event) => {
    socket = null;
    attempt += 1;
    if (event.code !== 4401)
      setTimeout(
        () => {
          if (!socket) open();
        },
        Math.min(500 * 2 ** attempt, attempt < 20 ? 2000 : 10000),
      );
  };
}

function take(message) {
  if (message.type === "recent") before(message);
  if (message.type !== "stats") return;
  const at = typeof message.at === "number" ? message.at : Date.parse(message.at) / 1000;
  cpus = message.host?.cpus ?? cpus;
  const there = message.containers ?? {};
  for (const [name, sample] of Object.entries(there)) keep(name, at, sample);
  // what does not run any more keeps neither its number nor its line
  for (const name of latest.keys())
    if (name && !(name in there)) {
      latest.delete(name);
      samples.delete(name);
      asked.delete(name);
    }
  if (message.host) {
    const [cpu, memory, io] = message.host.psi_pct ?? [];
    keep("", at, { ...message.host, psi_cpu_pct: cpu, psi_memory_pct: memory, psi_io_pct: io });
  }
  if (!document.hidden) requestAnimationFrame(draw);
}

/** Put what happened before in front of what came since. */
function before(message) {
  for (const [name, series] of [...Object.entries(message.containers), ["", message.host]]) {
    const came = samples.get(name) ?? [];
    const line = [];
    (series.cpu_cores ?? []).forEach((cores, index) => {
      const at = message.from + index * message.step_sec;
      if (came.length && at >= Math.floor(came[0].at)) return;
      const sample = { at, cpu_pct: cores == null ? null : cores * 100 };
      for (const [column, values] of Object.entries(series)) sample[column] = values[index];
      if (!name && cores != null && cpus) sample.cpu_pct = (100 * cores) / cpus;
      line.push(sample);
    });
    samples.set(name, [...line, ...came].slice(-LENGTH));
  }
  requestAnimationFrame(draw);
}

function keep(name, at, sample) {
  latest.set(name, complete(name, { ...sample, at }));
  const line = samples.get(name) ?? [];
  line.push(latest.get(name));
  if (line.length > LENGTH) line.shift();
  samples.set(name, line);
}

/** Add what is made of other fields: rates by their short names, and the CPU as a share. */
function complete(name, sample) {
  for (const [rate, field] of Object.entries(PER_SECOND)) sample[rate] = sample[field];
  sample.network_rate = sum(sample.network_rx_rate, sample.network_tx_rate);
  sample.disk_rate = sum(sample.disk_read_rate, sample.disk_write_rate);
  if (name && sample.cpu_pct != null) {
    const limit = sample.cpu_limit_cores ?? latest.get(name)?.cpu_limit_cores;
    if (cpus) sample.cpu_host_pct = sample.cpu_pct / cpus;
    if (limit || cpus) sample.cpu_share_pct = sample.cpu_pct / (limit || cpus);
  }
  if (sample.memory_limit_bytes) sample.memory_share_pct = (100 * sample.memory_bytes) / sample.memory_limit_bytes;
  // as df counts: what is kept back for root is neither used nor free
  if (sample.disk_free_bytes != null)
    sample.disk_share_pct = (100 * sample.disk_used_bytes) / (sample.disk_used_bytes + sample.disk_free_bytes || 1);
  return sample;
}

function sum(one, other) {
  return one == null && other == null ? null : (one ?? 0) + (other ?? 0);
}

const percent = (value) => decimal(`${value < 10 ? value.toFixed(1) : Math.round(value)} %`);
const cores = (value) =>
  word("cpus", decimal(value < 10 ? value.toFixed(value < 0.1 ? 3 : 2).replace(/\.?0+$/, "") : value.toFixed(1)));

function words(field, value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (field.endsWith("_rate")) return `${bytes(value)}/s`;
  if (field.endsWith("_bytes")) return bytes(value);
  if (field.endsWith("_pct")) return percent(value);
  if (field.endsWith("_cores")) return String(value);
  return String(value);
}

/** What a number means, for the pointer that rests on it. */
function explained(field, sample) {
  if (field === "cpu_share_pct" && sample.cpu_pct != null) {
    const parts = [cores(sample.cpu_pct / 100)];
    if (sample.cpu_limit_cores) parts.push(word("ofLimit", percent(sample.cpu_share_pct)));
    if (sample.cpu_host_pct != null) parts.push(word("ofHost", percent(sample.cpu_host_pct)));
    return parts.join(" · ");
  }
  if (field === "memory_bytes" && sample.memory_share_pct != null)
    return word("ofLimit", percent(sample.memory_share_pct));
  return "";
}

/** Draw what is in the page now; a container without a sample shows nothing. */
export function draw() {
  for (const place of document.querySelectorAll("[data-stat]")) {
    const sample = latest.get(place.dataset.container);
    show(place, place.dataset.stat, sample);
    const kernel = place.closest("[data-kernel]");
    if (kernel) kernel.hidden = !sample;
  }
  for (const place of document.querySelectorAll("[data-host]")) show(place, place.dataset.host, latest.get(""));
  for (const meter of document.querySelectorAll("[data-host-meter]")) {
    meter.value = latest.get("")?.[meter.dataset.hostMeter] ?? 0;
    meter.classList.toggle("high", meter.value > 90);
  }
  for (const canvas of document.querySelectorAll("canvas[data-spark]")) {
    const line = samples.get(canvas.dataset.container) ?? [];
    for (const sample of line) if (sample.network_rate === undefined) complete(canvas.dataset.container, sample);
    paint(canvas, line, LINES[canvas.dataset.spark], canvas.dataset.spark);
  }
  for (const canvas of document.querySelectorAll("canvas[data-spark-host]")) {
    paint(canvas, samples.get("") ?? [], [[canvas.dataset.sparkHost, "--chart-cpu"]], "host");
  }
}

function show(place, field, sample) {
  let text = sample ? words(field, sample[field]) : "–";
  if (sample && "none" in place.dataset && sample[field] == null) text = place.dataset.none;
  if (place.textContent !== text) place.textContent = text;
  const high =
    sample &&
    (field.endsWith("share_pct") ? sample[field] : field === "memory_bytes" ? sample.memory_share_pct : 0) > 90;
  place.classList.toggle("high", Boolean(high));
  const title = sample ? explained(field, sample) : "";
  if (title !== place.title && (title || place.title)) place.title = title;
}

function paint(canvas, values, lines, kind) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  let top = LEAST[kind] ?? 1;
  for (const [field] of lines) for (const value of values) top = Math.max(top, value[field] ?? 0);
  // the memory's line is as high as its share of the limit; without one, a quiet line lies low
  if (kind === "memory") top = latest.get(canvas.dataset.container)?.memory_limit_bytes ?? top * 1.6;
  for (const [field, token] of lines) {
    pen.beginPath();
    let drawing = false;
    values.forEach((value, index) => {
      if (value[field] == null) {
        drawing = false;
        return;
      }
      const x = width - (values.length - 1 - index) * (width / (LENGTH - 1));
      const y = height - 1.5 - Math.min(1, value[field] / top) * (height - 3);
      if (drawing) pen.lineTo(x, y);
      else pen.moveTo(x, y);
      drawing = true;
    });
    pen.strokeStyle = colour(token);
    pen.lineWidth = 1.4;
    pen.stroke();
  }
}
document.addEventListener("boxroom:morphed", () => requestAnimationFrame(draw));
