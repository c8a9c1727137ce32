// One queue: its numbers and settings, its tasks, and what may be done about them.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appItself, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { bytes, count, plural, span, words } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { button } from "../parts/dialog.js";
import { moment, pairs } from "../parts/words.js";
import { STATES, queueBadge, taskColumns } from "../parts/tasks.js";

const CHOICES = [["", "in any state"], ...STATES.map((state) => [state, state])];
// The states that a task is sent again from.
const ENDED = ["failed", "dead", "cancelled"];
const RATIO = 1000;

const pathOf = (query) => ofApp(appOf(query), `queues/${part(query.command ?? "")}`);

async function load(query, signal) {
  const app = appOf(query);
  const asked = { command: query.command, state: query.state, q: query.q, cursor: query.cursor, limit: 50 };
  const [queue, tasks, owner] = await Promise.all([get(pathOf(query), {}, signal), get(ofApp(app, "tasks"), asked, signal), get(appItself(app), {}, signal)]);
  return { queue, tasks, owner };
}

// What a redrive means: the tasks of this queue that the page's filter means.
const meant = (query) => Object.fromEntries(Object.entries({ command: query.command, state: query.state, q: query.q }).filter(([, value]) => value));

function buttons(query, queue) {
  const path = pathOf(query);
  const redrive = (body) => post(ofApp(appOf(query), "tasks/redrive"), { ...meant(query), ...body });
  const isMeant = !query.state || ENDED.includes(query.state);
  const pause = queue.paused
    ? button("Resume", { tone: "first", work: () => post(`${path}/resume`, {}), done: "Its tasks are handed out again." })
    : button("Pause", { work: () => post(`${path}/pause`, {}), done: "Nothing of it is handed out.",
      question: { title: `Pause ${queue.command}?`, text: "Nothing of it is handed out until it is resumed. Workers keep the tasks that they have.", yes: "Pause" } });
  const again = button("Send again", { work: () => redrive({}), done: ({ count: number, more }) => `${plural(number, "task is", "tasks are")} ready again${more ? "; there are more" : ""}.`,
    question: async () => {
      const { count: number, more } = await redrive({ dry_run: true });
      return { title: `Send ${more ? "the first " : ""}${plural(number, "task")} again?`, text: "Tasks that failed, died or were cancelled become ready, with no attempt counted.", yes: "Send them" };
    } });
  const purge = button("Purge", { tone: "danger", work: () => post(`${path}/purge`, { confirm: queue.command }), done: ({ removed, more }) => `${plural(removed, "task is", "tasks are")} removed${more ? "; there are more" : ""}.`,
    question: { title: `Purge ${queue.command}?`, text: `${plural((queue.counts.waiting ?? 0) + (queue.counts.ready ?? 0), "task")} that nobody has claimed would be removed. This cannot be taken back.`, yes: "Remove them", isDanger: true } });
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
  return html`<div class="card padded">${pairs([["Claimed at once", shown("max_claimed", atMost(""), "no limit")], ["Claims", shown("rate", atMost(" a second"), "no limit")],
    ["Attempts", shown("max_attempts", count, "–")], ["Wait between attempts", shown("retry_policy", words, "–")],
    ["First wait", shown("retry_base_seconds", seconds, "–")], ["Longest wait", shown("retry_cap_seconds", seconds, "–")],
    ["Longest claim", shown("timeout_seconds", seconds, "–")], ["Ageing", shown("ageing_seconds", seconds, "none: the higher priority goes first")],
    ["Ended tasks are kept", shown("retention_seconds", seconds, "–")], ["Dead tasks are kept", shown("dead_retention_seconds", seconds, "–")],
    ["Payload", shown("payload_bytes", (value) => `at most ${bytes(value)}`, "–")]])}</div>`;
}

function view({ data, query }) {
  const { queue, tasks, owner } = data;
  const staff = isStaff() ? owner.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${owner.app_name}</a> / <a href=${link("queues", { app: staff })}>Queues</a> /`;
  const oldest = queue.oldest_ready_seconds;
  return html`${heading(queue.command, { crumbs, text: queueBadge(queue), buttons: buttons(query, queue) })}
    <div class="sections">
      <div class="columns">
        ${section("Numbers", html`<div class="card padded">${pairs([...STATES.filter((state) => queue.counts[state] || state !== "aside").map((state) => [state, count(queue.counts[state])]),
          ["Oldest ready task", oldest === undefined ? "none" : span(oldest * RATIO)], ["Payloads of open tasks", bytes(queue.bytes)], ["Since", moment(queue.created_at)]])}</div>`)}
        ${section("Settings", settings(queue))}
      </div>
      ${section("Tasks", html`${filterBar({ placeholder: "attempts:2 error:~timeout since:-2h", choices: [{ name: "state", label: "State", options: CHOICES }] })}
        ${table({ caption: "Tasks, the newest first", rows: tasks.items, none: empty(query.q || query.state ? "No task matches" : "No task", null),
          columns: taskColumns((row) => link("task", { app: staff, id: row.id })) })}${pager(tasks)}`)}
    </div>`;
}

export default { title: (data) => data.queue.command, load, view };
