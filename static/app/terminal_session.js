/* One terminal session: an xterm.js, a socket to it, and the way back when the socket is lost.

   The shell lives in the container's supervisor, not in this page. Whoever comes back with the session's id gets its
   scrollback (1 MiB) first and then goes on. Every byte that xterm.js has drawn is acknowledged; the supervisor sends
   at most 256 KiB ahead of that, so a fast program cannot flood this page and Ctrl-C is never late. */
import { Terminal } from "../vendor/xterm/6.0.0/xterm.mjs";
import { FitAddon } from "../vendor/xterm-addon-fit/0.11.0/addon-fit.mjs";
import { SearchAddon } from "../vendor/xterm-addon-search/0.16.0/addon-search.mjs";
import { Unicode11Addon } from "../vendor/xterm-addon-unicode11/0.9.0/addon-unicode11.mjs";
import { WebLinksAddon } from "../vendor/xterm-addon-web-links/0.12.0/addon-web-links.mjs";
import { WebglAddon } from "../vendor/xterm-addon-webgl/0.19.0/addon-webgl.mjs";
import { ask } from "./ask.js";
import { word } from "./text.js";
import { Typed } from "./typed.js";

const ACK_BYTES = 32 * 1024;
const WAITING_BYTES = 64 * 1024; // typed or pasted ahead of a connection: more than that is lost
const RETRY_MS = [100, 300, 700, 1500, 3000];
const FINAL = new Set([4400, 4401, 4403, 4404]);
const THEME = {
  background: "#10151b",
  foreground: "#dfe6ee",
  cursor: "#f4f7fa",
  cursorAccent: "#10151b",
  selectionBackground: "#3a5878",
  black: "#2b333d",
  red: "#ff8a80",
  green: "#7bd88f",
  yellow: "#f2c866",
  blue: "#7db7ff",
  magenta: "#d6a4ff",
  cyan: "#6fd9d1",
  white: "#d5dde6",
  brightBlack: "#8592a0",
  brightRed: "#ffb0a8",
  brightGreen: "#a6edb3",
  brightYellow: "#ffe19a",
  brightBlue: "#a9d1ff",
  brightMagenta: "#e7c8ff",
  brightCyan: "#a3f0ea",
  brightWhite: "#ffffff",
};

const HELD = "terminal-style";

/** Make an element for xterm.js. The panel's Content-Security-Policy takes no style that a script wrote as markup. So
    for a style it gets an element that only holds the text, which adoptStyles applies, and the style attributes of its
    spans (colours outside of the palette) are set as properties. */
function createElement(name) {
  const made = Document.prototype.createElement.call(document, name === "style" ? HELD : name);
  if (name === "style") made.hidden = true;
  if (name === "span") made.setAttribute = setAttribute;
  return made;
}

function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** The document that xterm.js makes its elements with. */
const elements = new Proxy(document, {
  get(target, key) {
    if (key === "createElement") return createElement;
    const value = Reflect.get(target, key, target);
    return typeof value === "function" ? value.bind(target) : value;
  },
});

/** Apply the style elements of xterm.js as constructed sheets, which are no markup and which the policy takes. Returns
    the observer that follows their changes. */
function adoptStyles(element) {
  const sheets = new Map();
  const update = () => {
    for (const style of element.querySelectorAll(HELD)) {
      if (!sheets.has(style)) {
        sheets.set(style, new CSSStyleSheet());
        document.adoptedStyleSheets.push(sheets.get(style));
      }
      sheets.get(style).replaceSync(style.textContent);
    }
    for (const [style, sheet] of sheets) {
      if (style.isConnected) continue;
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
      sheets.delete(style);
    }
  };
  const watching = (records) => {
    const inStyles = (node) => (node.nodeType === Node.TEXT_NODE ? node.parentNode : node)?.localName === HELD;
    if (records.some((one) => inStyles(one.target) || [...one.addedNodes, ...one.removedNodes].some(inStyles)))
      update();
  };
  const observer = new MutationObserver(watching);
  observer.observe(element, { childList: true, characterData: true, subtree: true });
  update();
  return observer;
}

export class Session extends EventTarget {
  /** place: an element for the terminal; id: a session to go back to, or null for a new shell; orNew: whether a new
      shell will do where that session is gone. */
  constructor(place, { container, id = null, orNew = false, fontSize = 14, accessible = false }) {
    super();
    this.container = container;
    this.id = id;
    /** The name of a console that this is, which lives as long as the container; null for a shell. */
    this.console = /^(console|tty\d+)$/.test(id ?? "") ? id : null;
    this.orNew = orNew;
    this.ended = false;
    this.closed = false;
    this.viewers = [];
    this.attempt = 0;
    this.unacked = 0;
    this.replaying = 0;
    this.input = new Typed();
    this.term = new Terminal({
      fontSize,
      theme: THEME,
      scrollback: 20000,
      cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono") || "monospace",
      screenReaderMode: accessible,
      allowProposedApi: true,
      documentOverride: elements,
      windowOptions: {},
      macOptionIsMeta: true,
      minimumContrastRatio: 4.5,
    });
    this.fit = new FitAddon();
    this.search = new SearchAddon();
    this.term.loadAddon(this.fit);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new Unicode11Addon());
    this.term.unicode.activeVersion = "11";
    this.term.loadAddon(new WebLinksAddon((event, uri) => this.follow(event, uri)));
    document.createElement = createElement; // its scrollbar asks the page's own document
    try {
      this.term.open(place);
    } finally {
      delete document.createElement;
    }
    this.styles = adoptStyles(this.term.element);
    this.useWebgl();
    // While old output is drawn again, xterm.js answers to questions in it that were answered long ago. It says
    // beforehand what a person did, to its own parts only.
    let byPerson = false;
    this.term._core.coreService.onUserInput(() => {
      byPerson = true;
    });
    this.term.onData((data) => {
      const answer = !byPerson;
      byPerson = false;
      if (!answer || this.hears()) this.typed(new TextEncoder().encode(data));
    });
    this.term.onBinary((data) => {
      if (this.hears()) this.typed(Uint8Array.from(data, (char) => char.charCodeAt(0)));
    });
    this.term.onResize(() => this.tellSize());
    this.term.attachCustomKeyEventHandler((event) => this.key(event));
    this.observer = new ResizeObserver(() => this.refit());
    this.observer.observe(place);
    this.refit();
    this.connect();
  }

  useWebgl() {
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => webgl.dispose());
      this.term.loadAddon(webgl);
    } catch {
      /* no WebGL here: xterm draws with the DOM */
    }
  }

  refit() {
    if (this.term.element?.offsetParent) this.fit.fit();
  }

  /** A link in a terminal is a container's text: ask before it is opened. */
  follow(event, uri) {
    event.preventDefault();
    ask(word("openLinkTitle"), word("openLink", uri), [
      [word("open"), () => open(uri, "_blank", "noopener,noreferrer"), "btn-primary"],
    ]);
  }

  connect() {
    if (this.closed) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/containers/${this.container}/terminal`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.refused = null;
    socket.onopen = () => {
      const { cols, rows } = this.term;
      this.send({ type: "open", session: this.id, typist: this.input.typist, cols, rows });
    };
    socket.onmessage = (event) => {
      if (socket === this.socket) this.got(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.lost(event);
    };
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  got(data) {
    if (typeof data !== "string") {
      const bytes = new Uint8Array(data);
      const socket = this.socket;
      // what an earlier connection sent is no business of this one
      this.term.write(bytes, () => {
        if (socket === this.socket) this.drawn(bytes.length);
      });
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "opened") this.opened(message);
    else if (message.type === "exit") this.exited(message.code);
    else if (message.type === "taken") {
      this.input.arrived(message.bytes);
      this.sendWaiting();
    } else if (message.type === "viewers") {
      this.viewers = message.viewers ?? message.items ?? [];
      this.changed();
    } else if (message.type === "error") this.refused = message;
  }

  opened({ session, replay, taken }) {
    if (this.id) this.term.reset(); // the scrollback comes again, whole
    this.id = session;
    this.orNew = false;
    this.replaying = replay ?? 0;
    this.watchReplay();
    this.attempt = 0;
    this.unacked = 0;
    this.input.begin(taken);
    this.live = true;
    this.tellSize();
    this.sendWaiting();
    this.changed();
  }

  /** Should bytes of it have been skipped, so that nothing more comes, typing works again all the same. */
  watchReplay() {
    clearTimeout(this.replayTime);
    if (this.replaying)
      this.replayTime = setTimeout(() => {
        this.replaying = 0;
        this.sendWaiting();
      }, 5000);
  }

  drawn(count) {
    const before = this.replaying;
    this.replaying = Math.max(0, this.replaying - count);
    if (before) this.watchReplay();
    this.sendWaiting();
    this.unacked += count;
    if (this.unacked >= ACK_BYTES) this.ack();
    else this.ackSoon ??= setTimeout(() => this.ack(), 20);
  }

  ack() {
    clearTimeout(this.ackSoon);
    this.ackSoon = undefined;
    if (this.unacked) this.send({ type: "ack", bytes: this.unacked });
    this.unacked = 0;
  }

  exited(code) {
    this.ended = true;
    this.live = false;
    this.note(code === 0 ? word("shellEnded") : word("shellEndedWith", code));
    if (this.orNew) this.again();
  }

  lost(event) {
    this.live = false;
    if (this.closed || this.ended) return;
    const gone = event.code === 4404 && this.id;
    if (gone && this.orNew) {
      this.again();
      return;
    }
    if (FINAL.has(event.code) || (event.code === 4409 && this.refused)) {
      this.ended = true;
      this.note(gone ? word("sessionGone") : (this.refused?.message ?? word("lost")));
    } else {
      const delay = RETRY_MS[Math.min(this.attempt, RETRY_MS.length - 1)];
      this.attempt += 1;
      setTimeout(() => this.connect(), delay);
    }
    this.changed();
  }

  /** What was drawn stays readable; one key opens another shell. */
  note(text) {
    this.term.write(`\r\n\x1b[0m\x1b[7m ${text} \x1b[0m\r\n${word("pressEnter")}\r\n`);
    this.changed();
  }

  again() {
    this.ended = false;
    this.input.forget();
    this.orNew = false;
    this.id = this.console;
    this.attempt = 0;
    this.socket?.close();
    this.connect();
  }

  /** The container was started again: a new shell takes the place of the one that ended, or will be found gone. */
  renew() {
    if (this.ended) this.again();
    else this.orNew = true;
  }

  typed(bytes) {
    if (this.ended) {
      if (bytes[0] === 13) this.again();
      return;
    }
    if (this.modifier) bytes = this.modifier(bytes);
    if (this.hears() || this.input.waitingBytes + bytes.length <= WAITING_BYTES) this.input.push(bytes);
    this.sendWaiting();
    this.dispatchEvent(new Event("typed"));
  }

  /** Whether what is typed goes to the shell at once. */
  hears() {
    return this.live && !this.replaying && this.socket?.readyState === WebSocket.OPEN;
  }

  /** Send what was typed, in its order, once the shell hears it. */
  sendWaiting() {
    for (let part; this.hears() && (part = this.input.next()); ) this.socket.send(part);
  }

  key(event) {
    if (event.type !== "keydown") return true;
    const shifted = event.ctrlKey && event.shiftKey;
    if (shifted && event.code === "KeyC") {
      this.copy();
      event.preventDefault();
      return false;
    }
    if (shifted && event.code === "KeyF") {
      this.dispatchEvent(new Event("find"));
      event.preventDefault();
      return false;
    }
    // Tab is the shell's
    if (shifted && event.code === "KeyL") {
      this.dispatchEvent(new Event("leave"));
      event.preventDefault();
      return false;
    }
    // Ctrl-Shift-V and Ctrl-V of a Mac reach the page as a paste event, which xterm.js takes
    return !(shifted && event.code === "KeyV");
  }

  async copy() {
    const text = this.term.getSelection();
    if (!text) return;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // xterm.js fills that in
      document.execCommand("copy");
    }
  }

  async paste() {
    const text = await navigator.clipboard.readText().catch(() => ""); // the browser's user may say no
    if (text) this.term.paste(text);
    this.term.focus();
  }

  tellSize() {
    if (this.live) this.send({ type: "resize", cols: this.term.cols, rows: this.term.rows });
  }

  setFontSize(size) {
    this.term.options.fontSize = size;
    this.refit();
  }

  setAccessible(on) {
    this.term.options.screenReaderMode = on;
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** End the shell itself, not only this view of it. */
  end() {
    if (!this.id || this.ended || this.console) return;
    const token = JSON.parse(document.body.getAttribute("hx-headers") ?? "{}")["X-CSRFToken"] ?? "";
    fetch(`/api/v1/containers/${this.container}/sessions/${this.id}`, {
      method: "DELETE",
      headers: { "X-CSRFToken": token },
    }).catch(() => {});
  }

  close() {
    this.closed = true;
    this.observer.disconnect();
    this.styles.disconnect();
    this.socket?.close();
    this.term.dispose();
  }
}
