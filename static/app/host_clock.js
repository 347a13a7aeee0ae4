/** The host's clock: what it has measured is asked for by its own time, whatever this machine's clock shows.
 *
 *  They may be far apart, and the host's may be set while a page is open. Every answer says what it shows (Date). */
const SLACK_SEC = 30;
let ahead = 0;

/** The time there, in Unix seconds; as here where the two agree but for what an answer may take. */
export const now = () => Date.now() / 1000 + ahead;

/** Whether a time that was now there says that its clock, or this one, was set. */
export const moved = (at) => Math.abs(at - now()) > SLACK_SEC;

/** Take an answer's Date; whether now() has changed much by it. */
export function heard(answer) {
  const at = Date.parse(answer.headers.get("Date")) / 1000;
  if (Number.isNaN(at) || !moved(at)) return false;
  const off = at - Date.now() / 1000;
  ahead = Math.abs(off) > SLACK_SEC ? off : 0;
  return true;
}
