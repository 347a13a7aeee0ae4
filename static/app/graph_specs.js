/** What the graphs show: which charts there are, of which measurements, with which units and limits. */
import { bytes, decimal } from "./text.js";

const texts = document.getElementById("graph-texts")?.dataset ?? {};
/** What the page calls something, in its language. */
export const word = (name, fallback) => texts[name] ?? fallback;

const perSecond = (value) => `${bytes(value)}/s`;
const percent = (value) => decimal(`${value < 10 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} %`);
const cores = (value) => decimal(`${value < 10 ? value.toFixed(2).replace(/\.?0+$/, "") : value.toFixed(1)}`);

const part = (name, fallback, value, whole) =>
  whole ? ` · ${word(name, fallback).replace("%s", percent((100 * value) / whole))}` : "";
const ofLimit = (value, limit) => part("ofLimit", "%s of the limit", value, limit);
const ofHost = (value, whole) => part("ofHost", "%s of the host", value, whole);
const cpuShare = (value, limit, cpus) => ofLimit(value, limit) + ofHost(value, cpus);
const cpuOfHost = (value, limit, cpus) => ofHost(value, limit || cpus);

/** The charts of a container, or those of the host. */
export function specs(host) {
  const share = host ? ofHost : ofLimit;
  const limitLabel = host ? word("there", "There") : word("limit", "Limit");
  return [
    {
      id: "cpu",
      title: word("cpu", "CPU"),
      format: cores,
      least: 0.05,
      limit: "cpu_limit_cores",
      limitAlways: true,
      share: host ? cpuOfHost : cpuShare,
      lines: [
        { column: "cpu_cores", label: word("cores", "Cores"), colour: "--chart-cpu", fill: true },
        { column: "cpu_cores_max", label: "", colour: "--chart-cpu", faint: true },
      ],
    },
    {
      id: "memory",
      title: word("memory", "Memory"),
      format: bytes,
      bytes: true,
      least: 2 ** 20,
      limit: "memory_limit_bytes",
      limitAlways: true,
      share,
      lines: [
        { column: "memory_bytes", label: word("used", "Used"), colour: "--chart-memory", fill: true },
        { column: "memory_bytes_max", label: "", colour: "--chart-memory", faint: true },
        { column: "swap_bytes", label: word("swap", "Swap"), colour: "--chart-tx" },
      ],
    },
    {
      id: "network",
      title: word("network", "Network"),
      format: perSecond,
      bytes: true,
      least: 1024,
      lines: [
        { column: "network_rx_bytes_per_sec", label: word("received", "Received"), colour: "--chart-rx", fill: true },
        { column: "network_tx_bytes_per_sec", label: word("sent", "Sent"), colour: "--chart-tx" },
      ],
    },
    {
      id: "disk",
      title: word("disk", "Disk"),
      format: perSecond,
      bytes: true,
      least: 1024,
      lines: [
        { column: "disk_read_bytes_per_sec", label: word("read", "Read"), colour: "--chart-rx", fill: true },
        { column: "disk_write_bytes_per_sec", label: word("written", "Written"), colour: "--chart-tx" },
      ],
    },
    {
      id: "space",
      title: word("space", "Disk space"),
      format: bytes,
      bytes: true,
      least: 2 ** 20,
      limit: "disk_limit_bytes",
      share,
      lines: [{ column: "disk_used_bytes", label: word("used", "Used"), colour: "--chart-memory", fill: true }],
    },
    {
      id: "processes",
      title: word("processes", "Processes"),
      format: (value) => String(Math.round(value)),
      whole: true,
      least: 5,
      limit: "pids_limit",
      share,
      lines: [{ column: "processes", label: word("processes", "Processes"), colour: "--chart-cpu", fill: true }],
    },
    {
      id: "pressure",
      title: word("pressure", "Pressure (time spent waiting)"),
      format: percent,
      least: 1,
      optional: ["psi_cpu_pct", "psi_memory_pct", "psi_io_pct"],
      lines: [
        { column: "psi_cpu_pct", label: word("cpu", "CPU"), colour: "--chart-cpu" },
        { column: "psi_memory_pct", label: word("memory", "Memory"), colour: "--chart-memory" },
        { column: "psi_io_pct", label: word("disk", "Disk"), colour: "--chart-tx" },
      ],
    },
  ].map((spec) => ({ ...spec, limitLabel }));
}
