// Schedules: their times in words, and their rows in a table.
import { html, nothing } from "../vendor/lit-html.js";
import { link } from "../core/router.js";
import { clock } from "../core/format.js";
import { badge, moment } from "../parts/words.js";

const NAMED = { "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *" };
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
// More moments of a day than these are no sentence.
const TIMES_MAX = 4;

const two = (number) => String(number).padStart(2, "0");

const listed = (words) => (words.length < 2 ? words[0] : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

const isStar = (field) => field === "*";

// The numbers of a field that lists them; null where it has steps or ranges.
const numbers = (field) => (/^\d+(,\d+)*$/.test(field) ? field.split(",").map(Number) : null);

const stepOf = (field, most) => {
  const step = Number(/^\*\/(\d+)$/.exec(field)?.[1]);
  return step && most % step === 0 ? step : null;
};

const rangeOf = (field) => /^(\d+)-(\d+)$/.exec(field)?.slice(1).map(Number) ?? null;

// A list or one range of names, by their numbers or their first three letters.
function named(field, names, first) {
  const nameOf = (word) => {
    const at = /^\d+$/.test(word) ? Number(word) - first : names.findIndex((name) => name.slice(0, 3).toLowerCase() === word.toLowerCase());
    return names[at];
  };
  const parts = field.split(",").map((part) => {
    const [from, to, ...more] = part.split("-").map(nameOf);
    return more.length || !from || (part.includes("-") && !to) ? null : to ? `${from} to ${to}` : from;
  });
  return parts.includes(null) ? null : listed(parts);
}

function timesOf(minute, hour) {
  const [minutes, hours, range] = [numbers(minute), numbers(hour), rangeOf(hour)];
  if (minutes && hours) {
    const times = hours.flatMap((at) => minutes.map((one) => `${two(at)}:${two(one)}`));
    return times.length > TIMES_MAX ? null : `at ${listed(times)}`;
  }
  const each = isStar(minute) ? 1 : stepOf(minute, 60);
  const every = each && (each === 1 ? "every minute" : `every ${each} minutes`);
  if (every && isStar(hour)) return every;
  if (every && range) return `${every} from ${two(range[0])}:00 to ${two(range[1])}:59`;
  if (minutes?.length !== 1) return null;
  const past = minutes[0] === 0 ? "on the hour" : `at minute ${minutes[0]}`;
  if (isStar(hour)) return minutes[0] === 0 ? "every hour" : `every hour at minute ${minutes[0]}`;
  if (range) return `every hour from ${two(range[0])}:${two(minutes[0])} to ${two(range[1])}:${two(minutes[0])}`;
  const hourly = stepOf(hour, 24);
  return hourly ? `every ${hourly} hours ${past}` : null;
}

function daysOf(day, month, weekday) {
  const [days, week, months] = [numbers(day), isStar(weekday) ? "" : named(weekday, DAYS, 0), isStar(month) ? "" : named(month, MONTHS, 1)];
  if ((!isStar(day) && !days) || week === null || months === null) return null;
  const within = months ? ` in ${months}` : days ? " of the month" : "";
  // As in cron: where both are said, one of them is enough.
  const parts = [days && `on day ${listed(days.map(String))}${within}`, week && `on ${week}${days ? "" : within}`].filter(Boolean);
  return parts.length ? ` ${parts.join(" or ")}` : months ? `${within}, every day` : "";
}

// A cron line in words; null where it says more than a sentence does.
export function cronWords(line) {
  const fields = (NAMED[line.trim()] ?? line.trim()).split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, day, month, weekday] = fields;
  const [times, days] = [timesOf(minute, hour), daysOf(day, month, weekday)];
  if (times === null || days === null) return null;
  const isDaily = !days && times.startsWith("at ");
  return `${times.charAt(0).toUpperCase()}${times.slice(1)}${isDaily ? " every day" : days}`;
}

// A moment as clocks of the zone show it; in UTC where the browser does not know the zone.
export function inZone(at, zone) {
  try {
    const look = { timeZone: zone, weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "shortOffset" };
    return new Intl.DateTimeFormat("en-GB", look).format(new Date(at));
  } catch {
    return clock(at);
  }
}

export const scheduleBadge = (row) => (row.paused ? badge("warn", "paused") : row.error ? badge("bad", "failing") : badge("good", "active"));

export const scheduleColumns = ({ hasApp, hrefOf, queueOf, watchOf }) => [
  { label: "Schedule", kind: "wide", cell: (row) => html`<a href=${hrefOf(row)}>${row.name}</a>${row.error ? html`<span class="sub">${row.error}</span>` : nothing}` },
  ...(hasApp ? [{ label: "App", kind: "named", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>` }] : []),
  { label: "When", kind: "wide", cell: (row) => html`${cronWords(row.cron) ?? html`<code>${row.cron}</code>`}<span class="sub">${row.zone}</span>` },
  { label: "Creates", kind: "named", cell: (row) => (row.repository_id ? html`<a href=${watchOf(row)}>a resync</a>` : html`<a class="mono" href=${queueOf(row)}>${row.command}</a>`) },
  { label: "State", kind: "tight", cell: scheduleBadge },
  { label: "Next tick", kind: "tight", cell: (row) => moment(row.next[0]) },
  { label: "Last task", kind: "tight", cell: (row) => moment(row.last_task_at) },
];
