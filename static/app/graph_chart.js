/** One chart of the graphs page: a title, the values below the cursor, lines over time, limits and events. */
import uPlot from "../vendor/uplot/1.6.32/uPlot.esm.js";
import { colour } from "./colours.js";

const KEY = "boxroom-graphs";
const HEIGHT = 150;
const BYTE_STEPS = [];
for (let power = 0; power < 51; power += 1) BYTE_STEPS.push(2 ** power);

function faded(value, alpha) {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = value;
  const hex = canvas.fillStyle;
  return hex.startsWith("#")
    ? `${hex}${Math.round(alpha * 255)
        .toString(16)
        .padStart(2, "0")}`
    : hex;
}

const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const MONTH = new Intl.DateTimeFormat(undefined, { month: "short", year: "numeric" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const SECOND = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** The words of one mark of the time axis; step: seconds between marks. A new day says its date. */
function moment(at, step) {
  const date = new Date(at * 1000);
  if (step >= 28 * 86400) return MONTH.format(date);
  if (step >= 86400 || (date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0))
    return DAY.format(date);
  return (step < 60 ? SECOND : MINUTE).format(date);
}

export class Chart {
  /** spec: {title, lines: [{column, label, colour, faint?}], limit?: column, limitLabel, format, shares?, bytes?}.
   *  zoomed: called with (from, to) when somebody drags over a part. hovered: with the time below the cursor, or
   *  null. */
  constructor(parent, spec, zoomed, hovered) {
    this.spec = spec;
    this.zoomed = zoomed;
    this.hovered = hovered;
    this.plot = null;
    this.data = null;
    this.root = document.createElement("section");
    this.root.className = "graph";
    this.root.dataset.chart = spec.id;
    const head = document.createElement("header");
    const title = document.createElement("h2");
    title.textContent = spec.title;
    this.values = document.createElement("dl");
    this.values.className = "graph-values";
    this.place = document.createElement("div");
    this.place.className = "graph-plot";
    head.append(title, this.values);
    this.root.append(head, this.place);
    parent.append(this.root);
    this.cells = new Map();
    for (const line of [
      ...spec.lines.filter((each) => !each.faint),
      ...(spec.limit ? [{ column: spec.limit, label: spec.limitLabel, colour: "--error", limit: true }] : []),
    ]) {
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = line.label;
      term.style.setProperty("--line-colour", `var(${line.colour})`);
      term.classList.toggle("limit", Boolean(line.limit));
      this.values.append(term, value);
      this.cells.set(line.column, value);
    }
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  columns() {
    return [...this.spec.lines.map((line) => line.column), ...(this.spec.limit ? [this.spec.limit] : [])];
  }

  /** data: {times, series, from, to, events, cpus}. The plot is made at the first call and after rebuild(). */
  show(data) {
    this.data = data;
    const rows = [
      data.times,
      ...this.columns().map((column) => data.series[column] ?? new Array(data.times.length).fill(null)),
    ];
    if (!this.plot) this.plot = new uPlot(this.options(), rows, this.place);
    else this.plot.setData(rows, false);
    this.plot.batch(() => {
      this.plot.setScale("x", { min: data.from, max: data.to });
      this.plot.setScale("y", this.heights(rows));
    });
    this.mark();
    this.say(this.plot.cursor.idx);
  }

  /** Take the theme's colours again. */
  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data) this.show(this.data);
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) {
      this.plot.setSize({ width, height: HEIGHT });
      this.mark();
    }
  }

  heights(rows) {
    const limits = this.spec.limit ? rows.at(-1) : [];
    const lines = rows.slice(1, 1 + this.spec.lines.length);
    let top = 0;
    for (const line of lines) for (const value of line) if (value > top) top = value;
    const limit = limits.reduce((most, value) => Math.max(most, value ?? 0), 0);
    // a limit far above what is used would press the lines flat; its value still stands in the head
    if (limit && (this.spec.limitAlways || limit <= top * 10)) top = Math.max(top, limit);
    return { min: 0, max: Math.max(top * 1.08, this.spec.least ?? 1) };
  }

  options() {
    const spec = this.spec;
    const grid = { stroke: colour("--chart-grid"), width: 1 };
    const axis = {
      stroke: colour("--muted"),
      grid,
      ticks: { show: false },
      font: `11px ${getComputedStyle(document.body).fontFamily}`,
    };
    const series = spec.lines.map((line) => ({
      label: line.label,
      stroke: line.faint ? faded(colour(line.colour), 0.35) : colour(line.colour),
      width: line.faint ? 1 : 1.5,
      fill: line.fill ? faded(colour(line.colour), 0.12) : undefined,
      points: { show: false },
      spanGaps: false,
    }));
    if (spec.limit)
      series.push({
        label: spec.limitLabel,
        stroke: colour("--error"),
        width: 1,
        dash: [5, 4],
        points: { show: false },
      });
    return {
      width: this.place.clientWidth || 600,
      height: HEIGHT,
      pxAlign: 0,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: {
        y: false,
        sync: { key: KEY, setSeries: false },
        drag: { x: true, y: false, setScale: false },
        points: { size: 5 },
      },
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      axes: [
        { ...axis, size: 26, values: (_plot, marks, _axis, _space, step) => marks.map((at) => moment(at, step)) },
        {
          ...axis,
          size: 68,
          values: (_plot, marks) => marks.map(spec.format),
          ...(spec.bytes ? { incrs: BYTE_STEPS } : {}),
          ...(spec.whole ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000] } : {}),
        },
      ],
      series: [{}, ...series],
      hooks: {
        setCursor: [
          (plot) => {
            this.say(plot.cursor.idx);
            this.hovered(this.data.times[plot.cursor.idx] ?? null);
          },
        ],
        setSelect: [(plot) => this.select(plot)],
        draw: [(plot) => this.drawEvents(plot)],
      },
    };
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const from = plot.posToVal(left, "x");
    const to = plot.posToVal(left + width, "x");
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.zoomed(from, to);
  }

  drawEvents(plot) {
    const pen = plot.ctx;
    pen.save();
    pen.lineWidth = 1;
    pen.setLineDash([2, 3]);
    for (const event of this.data.events) {
      if (event.at < this.data.from || event.at > this.data.to) continue;
      const x = Math.round(plot.valToPos(event.at, "x", true)) + 0.5;
      pen.strokeStyle = colour(event.colour);
      pen.beginPath();
      pen.moveTo(x, plot.bbox.top);
      pen.lineTo(x, plot.bbox.top + plot.bbox.height);
      pen.stroke();
    }
    pen.restore();
  }

  /** Put a small mark with the words of each event above its line. */
  mark() {
    const over = this.plot.over;
    for (const old of over.querySelectorAll(".graph-event")) old.remove();
    for (const event of this.data.events) {
      if (event.at < this.data.from || event.at > this.data.to) continue;
      const mark = document.createElement("span");
      mark.className = "graph-event";
      mark.title = event.text;
      mark.dataset.kind = event.kind;
      mark.style.left = `${this.plot.valToPos(event.at, "x")}px`;
      mark.style.setProperty("--line-colour", `var(${event.colour})`);
      over.append(mark);
    }
  }

  /** Write the values at an index, or the newest ones, into the head. */
  say(index) {
    const { series, times, cpus } = this.data;
    const at = index ?? newest(times, series[this.spec.lines[0].column]);
    for (const [column, cell] of this.cells) {
      const value = series[column]?.[at];
      let text = value == null ? "–" : this.spec.format(value);
      if (column === this.spec.lines[0].column && value != null)
        text += this.spec.share?.(value, series[this.spec.limit]?.[at], cpus) ?? "";
      if (cell.textContent !== text) cell.textContent = text;
      const hidden = column === this.spec.limit && value == null;
      cell.hidden = hidden;
      cell.previousElementSibling.hidden = hidden;
    }
  }
}

/** The last index with a value. */
function newest(times, values) {
  for (let index = times.length - 1; index >= 0; index -= 1) if (values?.[index] != null) return index;
  return times.length - 1;
}
