// Queues and tasks in tables.
import { html, nothing } from "../vendor/lit-html.js";
import { link } from "../core/router.js";
import { count, ref, span } from "../core/format.js";
import { badge, changeWords, moment } from "../parts/words.js";

export const STATES = ["waiting", "ready", "claimed", "succeeded", "failed", "dead", "aside", "cancelled"];

const TONES = { waiting: "", ready: "", claimed: "", succeeded: "good", failed: "bad", dead: "bad", aside: "", cancelled: "" };
export const taskBadge = (row) => html`${badge(TONES[row.state] ?? "", row.state)}${row.cancelling ? html`<span class="sub">to be cancelled</span>` : nothing}`;

export const queueBadge = (row) => (row.paused ? badge("warn", "paused") : badge("good", "open"));

const some = (number) => (number ? count(number) : "–");

export const queueColumns = ({ hasApp, hrefOf }) => [
  { label: "Queue", kind: "wide", cell: (row) => html`<a href=${hrefOf(row)}>${row.command}</a>` },
  ...(hasApp ? [{ label: "App", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>` }] : []),
  { label: "State", kind: "tight", cell: queueBadge },
  { label: "Ready", kind: "num", cell: (row) => some(row.counts.ready) },
  { label: "Oldest ready", kind: "num", cell: (row) => (row.oldest_ready_seconds === undefined ? "–" : span(row.oldest_ready_seconds * 1000)) },
  { label: "Claimed", kind: "num", cell: (row) => some(row.counts.claimed) },
  { label: "Waiting", kind: "num", cell: (row) => some(row.counts.waiting) },
  { label: "Failed", kind: "num", cell: (row) => some(row.counts.failed) },
  { label: "Dead", kind: "num", cell: (row) => some(row.counts.dead) },
];

// When something happens to a task next, or happened last.
function when(row) {
  if (row.run_at) return html`due ${moment(row.run_at)}`;
  if (row.claimed_until) return html`claimed until ${moment(row.claimed_until)}`;
  return row.ended_at ? html`ended ${moment(row.ended_at)}` : html`created ${moment(row.created_at)}`;
}

export const taskColumns = (hrefOf) => [
  { label: "Task", kind: "wide", cell: (row) => html`<a class="mono" href=${hrefOf(row)}>${row.change?.path || row.id}</a>${row.change
    ? html`<span class="sub">${changeWords(row.change.operation)} on ${ref(row.change.branch)}</span>` : nothing}${row.error ? html`<span class="sub">${row.error}</span>` : nothing}` },
  { label: "State", kind: "tight", cell: taskBadge },
  { label: "Priority", kind: "num", cell: (row) => row.priority },
  { label: "Attempts", kind: "num", cell: (row) => `${count(row.attempts)} of ${count(row.max_attempts)}` },
  { label: "When", kind: "tight", cell: when },
];
