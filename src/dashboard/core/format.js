// Numbers, spans and names as people read them. Nothing here makes HTML.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));

// A span in its two largest units; a second part of nothing is left out.
function parts(large, unit, small, smaller) {
  const rest = Math.floor(small);
  return `${Math.floor(large)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  const minutes = seconds / 60;
  if (minutes < 60) return `${Math.floor(minutes)} min`;
  const hours = minutes / 60;
  if (hours < 24) return parts(hours, "h", minutes % 60, "min");
  const days = Math.floor(hours / 24);
  return parts(days, days === 1 ? "day" : "days", hours % 24, "h");
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  if (number === 1) return "1 byte";
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [number, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

// Whole seconds: a tenth of one says nothing of a moment, and jumps.
const rough = (ms) => (ms < 60_000 ? `${Math.floor(ms / 1000)} s` : span(ms));

export function ago(moment, now = Date.now()) {
  const ms = now - Date.parse(moment);
  if (Number.isNaN(ms)) return "–";
  if (ms < 0) return ms > -1000 ? "now" : `in ${rough(-ms)}`;
  return ms < 1000 ? "just now" : `${rough(ms)} ago`;
}

export function clock(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? String(moment ?? "") : date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

// A sentence of the server, with its moments as clocks show them.
export const plainTimes = (text) => (text ?? "").replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, clock);

export const commit = (id) => (id ? id.slice(0, 10) : "–");

export const ref = (name) => (name || "").replace(/^refs\/(heads|tags)\//, "");

export const words = (name) => (name || "").replaceAll("_", " ");

// A text of somebody else's, with what nobody sees written out: controls, marks of direction, spaces at its ends.
// Two names that look alike are then told apart, and none is read backwards.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^ | $/g;

export const visible = (text) => (text ?? "").replace(HIDDEN, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);

// The beginning of a sentence; a name, an address or a piece of code keeps its small letter.
export const capital = (text) => (/^[a-z]+([\s,;]|$)/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text);

// The plural of a noun; of a verb in it, the second form has to be given.
export const manyOf = (one) => (/(ch|sh|ss|x)$/.test(one) ? `${one}es` : /[^aeiou]y$/.test(one) ? `${one.slice(0, -1)}ies` : `${one}s`);

export const plural = (number, one, many = manyOf(one)) => `${count(number)} ${number === 1 ? one : many}`;
