/** Translated words of the scripts (parts/texts.html), and numbers with their units. */
const words = document.getElementById("texts")?.dataset ?? {};

export function word(name, ...values) {
  return values.reduce((text, value) => text.replace("%s", value), words[name] ?? name);
}

/** A number's text with the decimal sign of the page's language. */
const sign = (1.1).toLocaleString(document.documentElement.lang || "en").charAt(1);
export const decimal = (text) => (sign === "." ? text : text.replace(".", sign));

/** Bytes in binary units with at most one decimal. */
export function bytes(count) {
  const steps = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (count >= 1024 && step < steps.length - 1) {
    count /= 1024;
    step += 1;
  }
  return decimal(`${step && count < 100 ? count.toFixed(1).replace(/\.0$/, "") : Math.round(count)} ${steps[step]}`);
}

/** How long ago, short; the exact time is in the element's title. */
export function ago(date) {
  const seconds = (Date.now() - date.getTime()) / 1000;
  if (seconds < 60) return word("now");
  if (seconds < 3600) return word("ago", word("minute", Math.floor(seconds / 60)));
  if (seconds < 86400) return word("ago", word("hour", Math.floor(seconds / 3600)));
  return seconds < 86400 * 14 ? word("ago", word("day", Math.floor(seconds / 86400))) : null;
}
