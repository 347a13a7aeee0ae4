/** The console's log: live while the container runs (a socket that only shows), its kept end when it does not.

    What is written there is meant for a terminal: colours become classes, a carriage return writes over its line, other
    control sequences are left out. */
const LINES = 5000;
const ACK_BYTES = 32 * 1024;
const SEQUENCE =
  /\x1b(?:\[([0-9:;<=>?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-OQ-WYZ\\`-~])/y;
const SEQUENCE_MAX = 4096;
const RETRY_MS = [200, 500, 1500, 3000];
const FINAL = new Set([4400, 4401, 4403, 4404]);

const place = document.getElementById("console");
const toEnd = document.getElementById("console-end");
let state = document.getElementById("console-state");

/** Text of a terminal as lines of spans. */
class Screen {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.decoder = new TextDecoder();
    this.rest = "";
    this.cells = []; // of the last line: [character, class]
    this.column = 0;
    this.style = "";
    this.line = null;
    this.lines = 0;
  }

  bytes(data) {
    this.text(this.decoder.decode(data, { stream: true }));
  }

  text(more) {
    const following = place.scrollTop + place.clientHeight > place.scrollHeight - 30;
    const text = this.rest + more;
    let at = 0;
    while (at < text.length) {
      if (text[at] !== "\x1b") {
        const character = String.fromCodePoint(text.codePointAt(at));
        this.put(character);
        at += character.length;
        continue;
      }
      SEQUENCE.lastIndex = at;
      const found = SEQUENCE.exec(text);
      if (!found && text.length - at < SEQUENCE_MAX) break; // the rest of it is still to come
      if (found?.[2]) this.control(found[2], found[1]);
      at = found ? SEQUENCE.lastIndex : at + 1;
    }
    this.rest = text.slice(at);
    this.draw(false);
    if (following) place.scrollTop = place.scrollHeight;
  }

  put(character) {
    if (character === "\n") {
      this.draw(true);
      this.line = null;
      this.cells = [];
      this.column = 0;
      return;
    }
    if (character === "\r") {
      this.column = 0;
      return;
    }
    if (character === "\b") {
      this.column = Math.max(0, this.column - 1);
      return;
    }
    if (character === "\t") {
      do this.put(" ");
      while (this.column % 8);
      return;
    }
    if (character < " " || character === "\x7f") return;
    this.cells[this.column] = [character, this.style];
    this.column += 1;
  }

  control(final, parameters) {
    const number = parseInt(parameters, 10) || 0;
    if (final === "m") this.colour(parameters);
    else if (final === "K" && number !== 1)
      this.cells.length = number === 2 ? 0 : Math.min(this.cells.length, this.column);
    else if (final === "G") this.column = Math.max(0, number - 1) % 1000;
    else if (final === "C") this.column = Math.min(999, this.column + Math.max(1, number));
    else if (final === "D") this.column = Math.max(0, this.column - Math.max(1, number));
  }

  colour(parameters) {
    const on = new Set(this.style.split(" ").filter(Boolean));
    const only = (kind, name) => {
      for (const one of on) if (one.startsWith(kind)) on.delete(one);
      if (name) on.add(name);
    };
    const codes = parameters.split(";").map(Number);
    for (let i = 0; i < codes.length; i += 1) {
      const code = codes[i];
      if (code === 0) on.clear();
      else if (code === 1) on.add("c-bold");
      else if (code === 22) on.delete("c-bold");
      else if (code >= 30 && code <= 37) only("c-fg", `c-fg${code - 30}`);
      else if (code >= 90 && code <= 97) only("c-fg", `c-fg${code - 90}`);
      else if (code === 39) only("c-fg");
      else if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4;
    }
    this.style = [...on].join(" ");
  }

  /** Show the last line. evenEmpty: also where nothing stands in it, as its end has come. */
  draw(evenEmpty) {
    if (!this.line) {
      if (!this.cells.length && !evenEmpty) return;
      this.line = document.createElement("div");
      this.element.append(this.line);
      this.lines += 1;
      while (this.lines > LINES) {
        this.element.firstChild.remove();
        this.lines -= 1;
      }
    }
    const spans = [];
    let text = "";
    let style = "";
    const flush = () => {
      if (!text) return;
      if (style) spans.push(Object.assign(document.createElement("span"), { className: style, textContent: text }));
      else spans.push(text);
      text = "";
    };
    for (let i = 0; i < this.cells.length; i += 1) {
      const [character, own] = this.cells[i] ?? [" ", ""];
      if (own !== style) {
        flush();
        style = own;
      }
      text += character;
    }
    flush();
    this.line.replaceChildren(...spans);
  }
}

const screen = new Screen(place);
let socket = null;
let attempt = 0;
let run = "";

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const own = new WebSocket(`${scheme}://${location.host}/ws/containers/${place.dataset.container}/console`);
  own.binaryType = "arraybuffer";
  socket = own;
  let seen = 0;
  own.onopen = () => own.send(JSON.stringify({ type: "open" }));
  own.onmessage = (event) => {
    if (own !== socket) return;
    if (typeof event.data === "string") {
      if (JSON.parse(event.data).type === "opened") {
        screen.clear();
        attempt = 0;
      }
      return;
    }
    screen.bytes(new Uint8Array(event.data));
    seen += event.data.byteLength;
    if (seen >= ACK_BYTES || event.data.byteLength < 4096) {
      own.send(JSON.stringify({ type: "ack", bytes: seen }));
      seen = 0;
    }
  };
  own.onclose = (event) => {
    if (own !== socket) return;
    socket = null;
    if (state.dataset.live !== "1" || FINAL.has(event.code)) return;
    const delay = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
    attempt += 1;
    setTimeout(() => {
      if (!socket && state.dataset.live === "1") connect();
    }, delay);
  };
}

/** Show what is kept. */
async function read() {
  const answer = await fetch(place.dataset.read).catch(() => null);
  if (state.dataset.live === "1") return;
  if (!answer?.ok) {
    if (!place.childElementCount) place.textContent = place.dataset.lost;
    return;
  }
  const text = await answer.text();
  screen.clear();
  if (text) screen.text(text);
  else place.textContent = place.dataset.empty;
  place.scrollTop = place.scrollHeight;
}

function follow() {
  const now = `${state.dataset.live} ${state.dataset.run}`;
  if (now === run) return;
  run = now;
  attempt = 0;
  if (state.dataset.live === "1") {
    if (!socket) connect();
  } else {
    const old = socket;
    socket = null;
    old?.close();
    read();
  }
}

toEnd.addEventListener("click", () => {
  place.scrollTop = place.scrollHeight;
  place.focus();
});
place.addEventListener("scroll", () => {
  toEnd.hidden = place.scrollTop + place.clientHeight > place.scrollHeight - 30;
});
document.addEventListener("boxroom:morphed", () => {
  state = document.getElementById("console-state");
  follow();
});
follow();
