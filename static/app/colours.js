/** The colours of the page's theme, for what is drawn on a canvas.
 *
 *  A token such as --chart-cpu holds `light-dark(…)`, which is a colour only where it is one's colour: so each that is
 *  asked for is that of an element of its own, which nobody sees. */
const samples = new Map();

/** A token's colour as it is now, such as `rgb(11, 98, 196)`. */
export function colour(name) {
  if (!samples.has(name)) {
    const sample = document.createElement("span");
    sample.hidden = true;
    sample.style.color = `var(${name})`;
    document.documentElement.append(sample);
    samples.set(name, sample);
  }
  return getComputedStyle(samples.get(name)).color;
}
