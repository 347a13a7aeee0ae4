/** Live numbers and small lines in lists and tiles, fed by /ws/stats.
 *
 *  An element with data-stat="FIELD" data-container="NAME" shows a field of the newest sample; a canvas with
 *  data-spark="cpu|memory|network" draws the last minute. Fields FIELD_rate are differences per second. */
import { bytes } from "./text.js";

const LENGTH = 60;
const samples = new Map();
const latest = new Map();
const RATES = {
  network_rx_rate: "network_rx_bytes", network_tx_rate: "network_tx_bytes",
  disk_read_rate: "disk_read_bytes", disk_write_rate: "disk_write_bytes",
};
let socket = null;
let attempt = 0;
let wanted = null;

/** Subscribe to the samples of some containers, or of "all". */
export function watch(containers) {
  wanted = containers;
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "subscribe", containers }));
  else if (!socket) open();
}

function open() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws/stats`);
  socket.onopen = () => { attempt = 0; watch(wanted); };
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = (event) => {
    socket = null;
    attempt += 1;
    if (event.code !== 4401) setTimeout(open, Math.min(500 * 2 ** attempt, 10000));
  };
}

function take(message) {
  if (message.type !== "stats") return;
  const at = typeof message.at === "number" ? message.at : Date.parse(message.at) / 1000;
  for (const [name, sample] of Object.entries(message.containers ?? {})) keep(name, at, sample);
  for (const name of [...latest.keys()]) if (wanted === "all" && !(name in (message.containers ?? {}))) latest.delete(name);
  if (message.host) keep("", at, { ...message.host, psi_cpu_pct: message.host.psi_pct?.[0] });
  if (!document.hidden) requestAnimationFrame(draw);
}

function keep(name, at, sample) {
  const before = latest.get(name);
  const now = { ...sample, at };
  for (const [rate, total] of Object.entries(RATES)) {
    if (now[rate] === undefined && before && now[total] != null && before[total] != null && at > before.at) {
      now[rate] = Math.max(0, (now[total] - before[total]) / (at - before.at));
    }
  }
  latest.set(name, now);
  const line = samples.get(name) ?? [];
  line.push(now);
  if (line.length > LENGTH) line.shift();
  samples.set(name, line);
}

function words(field, value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (field.endsWith("_rate")) return `${bytes(value)}/s`;
  if (field.endsWith("_bytes")) return bytes(value);
  if (field.endsWith("_pct")) return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
  return String(value);
}

/** Draw what is in the page now; a container without a sample shows nothing. */
export function draw() {
  for (const place of document.querySelectorAll("[data-stat]")) {
    const sample = latest.get(place.dataset.container);
    const text = sample ? words(place.dataset.stat, sample[place.dataset.stat]) : "–";
    if (place.textContent !== text) place.textContent = text;
    const kernel = place.closest("[data-kernel]");
    if (kernel) kernel.hidden = !sample || sample[place.dataset.stat] == null;
  }
  for (const place of document.querySelectorAll("[data-host]")) {
    const text = words(place.dataset.host, latest.get("")?.[place.dataset.host]);
    if (place.textContent !== text) place.textContent = text;
  }
  const style = getComputedStyle(document.documentElement);
  for (const canvas of document.querySelectorAll("canvas[data-spark]")) {
    const kind = canvas.dataset.spark;
    const lines = { cpu: [["cpu_pct", "--chart-cpu"]], memory: [["memory_bytes", "--chart-memory"]], network: [["network_rx_rate", "--chart-rx"], ["network_tx_rate", "--chart-tx"]] }[kind];
    paint(canvas, samples.get(canvas.dataset.container) ?? [], lines, style, kind);
  }
  for (const canvas of document.querySelectorAll("canvas[data-spark-host]")) {
    paint(canvas, samples.get("") ?? [], [[canvas.dataset.sparkHost, "--chart-cpu"]], style, "host");
  }
}

function paint(canvas, values, lines, style, kind) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * scale)) { canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale); }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  let top = kind === "cpu" || kind === "host" ? 10 : 1;
  for (const [field] of lines) for (const value of values) top = Math.max(top, value[field] ?? 0);
  if (kind === "memory") top = Math.max(top, values.at(-1)?.memory_limit_bytes ?? top * 1.2);
  for (const [field, colour] of lines) {
    pen.beginPath();
    values.forEach((value, index) => {
      const x = width - (values.length - 1 - index) * (width / (LENGTH - 1));
      const y = height - 1.5 - ((value[field] ?? 0) / top) * (height - 3);
      if (index) pen.lineTo(x, y); else pen.moveTo(x, y);
    });
    pen.strokeStyle = style.getPropertyValue(colour).trim();
    pen.lineWidth = 1.4;
    pen.stroke();
  }
}
document.addEventListener("boxroom:morphed", () => requestAnimationFrame(draw));
