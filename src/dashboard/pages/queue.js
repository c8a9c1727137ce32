// One queue: its numbers and settings, its tasks, and what may be done about them.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { bytes, capital, count, plainTimes, plural, span, words } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, section, table } from "../parts/table.js";
import { empty, failed } from "../parts/states.js";
import { button } from "../parts/dialog.js";
import { moment, pairs, stateBadge } from "../parts/words.js";
import { selectorWords } from "../parts/fields.js";
import { totalOf } from "../tasks/watch-tasks.js";
import { STATES, queueBadge, taskColumns } from "../tasks/tasks.js";
import { numbers, rateWords, plot, secondsOf } from "../parts/plot.js";

const CHOICES = [["", "in any state"], ...STATES.map((state) => [state, state])];
// The states that a task is redriven from.
const ENDED = ["failed", "dead", "cancelled"];
const RATIO = 1000;
// How the wait grows from attempt to attempt, in words.
const WAITS = { fixed: "the first wait each time", linear: "grows by the first wait each time", exponential: "doubles each time",
  exp_full_jitter: "random, at most a bound that doubles each time", exp_equal_jitter: "random, from half of a bound that doubles each time" };
const WATCHES_SHOWN = 20;

// A filter that is refused takes the rows away, and nothing else of the page: it is corrected where it was written.
async function tasksOf(app, asked, signal) {
  try {
    return await get(ofApp(app, "tasks"), asked, signal);
  } catch (problem) {
    if (problem.status !== 400) throw problem;
    return { items: [], problem };
  }
}

const pathOf = (query) => ofApp(appOf(query), `queues/${part(query.command ?? "")}`);

async function load(query, signal) {
  const app = appOf(query);
  const asked = { command: query.command, state: query.state, q: query.q, cursor: query.cursor, limit: 50 };
  const filling = { q: `command:"${query.command}"`, limit: WATCHES_SHOWN };
  const [queue, tasks, owner, watches] = await Promise.all([get(pathOf(query), {}, signal), mayDo("tasks:read") ? tasksOf(app, asked, signal) : null, appSeen(app, signal),
    mayDo("watches:read") ? get(ofApp(app, "repositories"), filling, signal) : { items: [] }]);
  // A filter does not tell small letters from capitals; a queue does.
  return { queue, tasks, owner, watches: { ...watches, items: watches.items.filter(({ sink }) => sink?.command === query.command) } };
}

// What a redrive means: the tasks of this queue that the page's filter means.
const meant = (query) => Object.fromEntries(Object.entries({ command: query.command, state: query.state, q: query.q }).filter(([, value]) => value));

const unclaimed = ({ counts }) => ["waiting", "ready", "aside"].reduce((sum, state) => sum + (counts[state] ?? 0), 0);

function buttons(query, queue) {
  const path = pathOf(query);
  const redrive = (body) => post(ofApp(appOf(query), "tasks/redrive"), { ...meant(query), ...body });
  const isMeant = !query.state || ENDED.includes(query.state);
  const pause = queue.paused
    ? button("Resume", { tone: "first", work: () => post(`${path}/resume`, {}), done: "Its tasks are handed out again." })
    : button("Pause", { work: () => post(`${path}/pause`, {}), done: "Nothing of it is handed out.",
      question: { title: `Pause ${queue.command}?`, text: "Nothing of it is handed out until it is resumed. Workers keep the tasks that they have.", yes: "Pause" } });
  const again = button("Redrive", { work: () => redrive({}), done: ({ count: number, more }) => `${plural(number, "task is", "tasks are")} ready again${more ? "; there are more" : ""}.`,
    question: async () => {
      const { count: number, more } = await redrive({ dry_run: true });
      return { title: `Redrive ${more ? "the first " : ""}${plural(number, "task")}?`, text: "Tasks that failed, died or were cancelled become ready, with no attempt counted.", yes: "Redrive them" };
    } });
  const purge = button("Purge", { tone: "danger", work: () => post(`${path}/purge`, { confirm: queue.command }), done: ({ removed, more }) => `${plural(removed, "task is", "tasks are")} removed${more ? "; there are more" : ""}.`,
    question: { title: `Purge ${queue.command}?`, text: `At most ${plural(unclaimed(queue), "task")} that nobody has claimed would be removed. Changes of a watch stay. This cannot be taken back.`, yes: "Remove them", isDanger: true } });
  return html`${mayDo("queues:pause") ? pause : nothing}${mayDo("tasks:redrive") && isMeant ? again : nothing}${mayDo("queues:purge") ? purge : nothing}`;
}

const seconds = (number) => span(number * RATIO);

// The settings in effect. A setting that is not set shows its default; some settings have no limit then.
function settings({ settings: set, in_effect: now = set }) {
  const shown = (name, words, none) => {
    const value = now[name];
    if (value === undefined) return html`${none} <span class="muted">(default)</span>`;
    return set[name] === undefined ? html`${words(value)} <span class="muted">(default)</span>` : words(value);
  };
  const atMost = (unit) => (value) => `at most ${count(value)}${unit}`;
  return html`<div class="card padded">${pairs([["With workers at once", shown("max_claimed", atMost(""), "no limit")], ["Handed out", shown("rate", atMost(" a second"), "no limit")],
    ["Attempts", shown("max_attempts", count, "–")], ["Wait between attempts", shown("retry_policy", (policy) => WAITS[policy] ?? words(policy), "–")],
    ["First wait", shown("retry_base_seconds", seconds, "–")], ["Longest wait", shown("retry_cap_seconds", seconds, "–")],
    ["Longest claim", shown("timeout_seconds", seconds, "–")], ["A step of priority is worth", shown("ageing_seconds", (age) => `${seconds(age)} of age`, "any age: the higher priority goes first")],
    ["Ended tasks are kept", shown("retention_seconds", seconds, "–")], ["Dead tasks are kept", shown("dead_retention_seconds", seconds, "–")],
    ["Payload", shown("payload_bytes", (value) => `at most ${bytes(value)}`, "–")]])}</div>`;
}

// The watches whose changes become tasks of this queue.
const filledBy = (watches, staff) => section("Filled by", table({ caption: "Watches whose changes become tasks of this queue", rows: watches.items,
  columns: [
    { label: "Watch", kind: "wide", cell: (row) => html`<a href=${link("watch", { app: staff, id: row.repository_id })}>${row.repository}</a>
      <span class="sub">${selectorWords(row.selector)}${row.watch_name ? ` · ${row.watch_name}` : ""}</span>` },
    { label: "State", kind: "wide", cell: (row) => html`${stateBadge(row.effective_state)}${row.effective_reason ? html`<span class="sub">${plainTimes(row.effective_reason)}</span>` : nothing}` },
    { label: "Unfinished", kind: "num", cell: (row) => count(totalOf(row, "unfinished")) },
    { label: "With workers", kind: "num", cell: (row) => count(totalOf(row, "claimed")) },
    { label: "To come", kind: "num", cell: (row) => count(totalOf(row, "left")) },
  ] }), watches.next_cursor ? html`<a href=${link("watches", { app: staff, q: "sink:tasks" })}>all watches that fill queues</a>` : nothing);

// What became of its tasks, minute by minute.
function rates({ minutes }) {
  const at = minutes.map(secondsOf);
  const of = (name) => minutes.map((row) => row[name]);
  const cell = (name) => (row) => rateWords(row[name]);
  return section("Tasks each minute", html`<div class="columns">
      ${plot("queue-in", { at, unit: "/min", lines: [{ label: "created", values: of("created_per_min") }, { label: "handed out", values: of("claimed_per_min"), tone: "--warn", isDashed: true }] })}
      ${plot("queue-out", { at, unit: "/min", lines: [{ label: "succeeded", values: of("succeeded_per_min") }, { label: "failed or dead", values: of("failed_per_min"), tone: "--bad", isDashed: true }] })}
    </div>
    ${numbers(minutes, [
      { label: "Created", kind: "num", cell: cell("created_per_min") },
      { label: "Handed out", kind: "num", cell: cell("claimed_per_min") },
      { label: "Succeeded", kind: "num", cell: cell("succeeded_per_min") },
      { label: "Failed or dead", kind: "num", cell: cell("failed_per_min") }])}`, html`<span class="muted small">the last hour, by this server</span>`);
}

function view({ data, query }) {
  const { queue, tasks, owner, watches } = data;
  const staff = isStaff() ? owner.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${owner.app_name}</a> / <a href=${link("queues", { app: staff })}>Queues</a> /`;
  const oldest = queue.oldest_ready_seconds;
  return html`${heading(queue.command, { crumbs, text: queueBadge(queue), buttons: buttons(query, queue) })}
    <div class="sections">
      <div class="columns">
        ${section("Numbers", html`<div class="card padded">${pairs([...STATES.filter((state) => queue.counts[state] || state !== "aside").map((state) => [capital(state), count(queue.counts[state])]),
          ["Oldest ready task", oldest === undefined ? "none" : span(oldest * RATIO)], ["Payloads of open tasks", bytes(queue.bytes)], ["Created", moment(queue.created_at)]])}</div>`)}
        ${section("Settings", settings(queue))}
      </div>
      ${rates(queue.rates)}
      ${watches.items.length ? filledBy(watches, staff) : nothing}
      ${tasks ? section("Tasks", html`${filterBar({ placeholder: "attempts:2 error:~timeout since:-2h", choices: [{ name: "state", label: "State", options: CHOICES }] })}
        ${table({ caption: "Tasks, the newest first", rows: tasks.items, none: empty(query.q || query.state ? "No task matches" : "No task", null),
          columns: taskColumns((row) => link("task", { app: staff, id: row.id, delivery: row.change?.delivery_id })) })}${pager(tasks)}${tasks.problem ? failed(tasks.problem) : nothing}`) : nothing}
    </div>`;
}

export default { title: (data) => data.queue.command, load, view };
