/* What is typed into a terminal, kept until it is known to have arrived.

   A connection that breaks leaves open how much of what was sent came through. So the supervisor counts what it takes
   of each typist, which is one of these: it says so every 16 KiB, and at each new connection. What is beyond that count
   is sent again, and nothing twice, for the supervisor hears no more of a connection whose typist came by another. */
const PART_BYTES = 4096;
const WINDOW_BYTES = 64 * 1024; // sent, and not known to have arrived

export class Typed {
  constructor() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    this.typist = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.forget();
  }

  /** What was meant for a shell that is gone is for no other. */
  forget() {
    this.waiting = []; // typed before the shell could be asked for it, or while its scrollback is drawn
    this.waitingBytes = 0;
    this.sent = [];
    this.sentBytes = 0;
    this.taken = 0;
    this.counted = false;
  }

  push(bytes) {
    this.waiting.push(bytes);
    this.waitingBytes += bytes.length;
  }

  /** A connection begins. taken: how much arrived by those before; null where that is not known any more, undefined
      where the supervisor is one that does not count. */
  begin(taken) {
    this.counted = taken !== undefined;
    if (typeof taken === "number") this.arrived(taken);
    else {
      this.sent = [];
      this.sentBytes = 0;
      this.taken = 0;
    }
    this.waiting = [...this.sent, ...this.waiting];
    this.waitingBytes += this.sentBytes;
    this.sent = [];
    this.sentBytes = 0;
  }

  /** So much has arrived in all. */
  arrived(taken) {
    let more = Math.min(taken - this.taken, this.sentBytes);
    this.taken = taken;
    this.sentBytes -= Math.max(0, more);
    while (more > 0) {
      const first = this.sent[0];
      if (first.length > more) this.sent[0] = first.subarray(more);
      else this.sent.shift();
      more -= first.length;
    }
  }

  /** The next bytes to be sent now, or null. */
  next() {
    if (!this.waiting.length || (this.counted && this.sentBytes >= WINDOW_BYTES)) return null;
    const first = this.waiting[0];
    const part = first.subarray(0, PART_BYTES);
    if (part.length < first.length) this.waiting[0] = first.subarray(PART_BYTES);
    else this.waiting.shift();
    this.waitingBytes -= part.length;
    if (this.counted) {
      this.sent.push(part);
      this.sentBytes += part.length;
    }
    return part;
  }
}
