// Numbers over time, as the server measured them. A picture is no use to those who do not see it: each says its
// last value and its range in words, and the same numbers stand in a table.
import { html } from "../vendor/lit-html.js";
import { count } from "../core/format.js";
import { table } from "./table.js";
import { empty } from "./states.js";
import { moment } from "./words.js";

const HEIGHT = 180;
// A picture shows this many seconds at least: fewer samples are not drawn wider.
const SPAN_MIN_S = 300;
// The width of a sample's dot. A single sample has no line, so its dot has to be seen by itself.
const DOT = 3;
const SINGLE_DOT = 9;
// What the sides of a picture take beside its canvas.
const SIDES = 24;
// Rows in a table of samples, at most: a screen reader needs no row each few seconds.
const ROWS_MAX = 12;

const shown = new Map();
const drawn = new Map();
let library = null;
let isDue = false;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function load() {
  library ??= (async () => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL("../vendor/uplot.css", import.meta.url).pathname;
    const styled = new Promise((done) => sheet.addEventListener("load", done, { once: true }));
    document.head.append(sheet);
    const [module] = await Promise.all([import("../vendor/uplot.js"), styled]);
    return module.default;
  })();
  return library;
}

const clocks = (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toTimeString().slice(0, 5));

function options(width, unit, lines) {
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const values = (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) || unit ? `${Number(tick.toFixed(2))}${unit && ` ${unit}`}` : ""));
  return {
    width, height: HEIGHT, cursor: { show: false }, legend: { show: false },
    scales: { x: { range: (_, low, high) => [Math.min(low, high - SPAN_MIN_S), high] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, size: 28, gap: 9, space: 64, incrs: [60, 300, 600, 1800, 3600, 21600], values: clocks }, { ...axis, size: 60, values }],
    series: [{}, ...lines.map((line) => ({ stroke: colour(line.tone ?? "--accent"), width: 2, dash: line.isDashed ? [6, 4] : undefined,
      points: { show: true, size: isSingle(line) ? SINGLE_DOT : DOT, fill: colour(line.tone ?? "--accent") } }))],
  };
}

const knownOf = ({ values }) => values.filter((value) => value !== null);

const isSingle = (line) => knownOf(line).length === 1;

// Draws every plot of the page, and draws a plot again when its width, its lines, their dots or the theme changed.
async function update() {
  isDue = false;
  const Plot = await load();
  for (const [name, { host, plot }] of drawn) {
    if (host.isConnected) continue;
    plot.destroy();
    drawn.delete(name);
  }
  for (const host of document.querySelectorAll("[data-plot]")) {
    const { plot: name } = host.dataset;
    const { at, lines, unit } = shown.get(name) ?? {};
    if (!at?.length) continue;
    const width = Math.max(1, host.clientWidth - SIDES);
    const theme = document.documentElement.dataset.theme;
    // A first point without a value: the library widens a single sample to years.
    const data = [[at[0] - 1, ...at], ...lines.map(({ values }) => [null, ...values])];
    const known = drawn.get(name);
    const dots = lines.map(isSingle).join();
    if (known?.host === host && known.width === width && known.theme === theme && known.dots === dots) {
      known.plot.setData(data);
      continue;
    }
    known?.plot.destroy();
    drawn.set(name, { host, width, theme, dots, plot: new Plot(options(width, unit, lines), data, host) });
  }
}

function soon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(update);
}

addEventListener("resize", soon);

const rounded = (number) => Number(number.toFixed(number < 10 ? 1 : 0));

function wordsOf(line) {
  const { label } = line;
  const known = knownOf(line);
  if (!known.length) return `${label}: no samples yet`;
  return `${label}: now ${rounded(known.at(-1))}, at least ${rounded(Math.min(...known))}, at most ${rounded(Math.max(...known))} in ${known.length} samples`;
}

export const secondsOf = (row) => Date.parse(row.at) / 1000;

export const rateWords = (value) => (value === null ? "–" : value < 10 ? value.toFixed(1) : count(value));

// The same numbers in a table, some of them.
export function numbers(items, columns) {
  const step = Math.max(1, Math.ceil(items.length / ROWS_MAX));
  const rows = items.filter((_, index) => (items.length - 1 - index) % step === 0).reverse();
  return html`<details class="numbers"><summary>The last hour in numbers</summary>${table({ caption: "Samples of the last hour, the newest first", rows,
    none: empty("No samples yet", "The first comes with the next survey."),
    columns: [{ label: "At", kind: "tight", cell: (row) => moment(row.at) }, ...columns] })}</details>`;
}

// `at`: seconds since 1970; `lines`: `{ label, values, tone, isDashed }`, a value may be null.
export function plot(name, { at, lines, unit = "" }) {
  shown.set(name, { at, lines, unit });
  soon();
  // The legend of several lines; a single sample has its value there, too.
  const mark = (line) => html`<span class="mark ${(line.tone ?? "--accent").slice(2)} ${line.isDashed ? "dashed" : ""}">${line.label}${isSingle(line)
    ? `: ${rounded(knownOf(line)[0])}${unit && ` ${unit}`}` : ""}</span>`;
  const key = lines.length > 1 || lines.some(isSingle) ? html`<figcaption class="key small">${lines.map(mark)}</figcaption>` : "";
  return html`<figure class="card plot-card"><div class="plot" role="img" aria-label=${lines.map(wordsOf).join("; ")} data-plot=${name}>${at.length ? "" : html`<p class="muted">No samples yet</p>`}</div>${key}</figure>`;
}
