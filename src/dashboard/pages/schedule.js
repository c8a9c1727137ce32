// One schedule: when it ticks, what it creates, what came of that; and the form that makes or changes one.
import { html, nothing } from "../vendor/lit-html.js";
import { get, getText, part, post, postText, putText, remove } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { addressOf, go, here, link, redraw } from "../core/router.js";
import { count, plural } from "../core/format.js";
import { membersOf } from "../core/json.js";
import { heading } from "../parts/shell.js";
import { section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { button, tell } from "../parts/dialog.js";
import { code, moment, pairs } from "../parts/words.js";
import { choice, fault, faultsOf, field, textOf } from "../parts/forms.js";
import { cronWords, inZone, scheduleBadge } from "../tasks/schedules.js";

const MISSED = [["one", "One task", "for all ticks that passed while no server ran"], ["each", "A task for each", "at most for the newest 100 of them"]];
const OVERLAP = [["allow", "Create the next task", "beside the one that has not ended"], ["skip", "Skip the tick", "it is counted, and has no task"],
  ["wait", "Wait", "the next task is created when the one before has ended"]];

const pathOf = (query, name = query.name) => ofApp(appOf(query), `schedules/${part(name ?? "")}`);

async function load(query, signal) {
  const owner = appSeen(appOf(query), signal);
  if (query.tab === "make") return { owner: await owner };
  // The payload is kept byte by byte, so that a change of the rest leaves it as it is.
  const [text, app] = await Promise.all([getText(pathOf(query), signal), owner]);
  return { schedule: JSON.parse(text), payload: membersOf(text).get("payload") ?? "null", owner: app };
}

const taskText = ({ command, priority, max_attempts: most, webhook }, payload) => `{"payload":${payload},${JSON.stringify({ command, priority, max_attempts: most, webhook }).slice(1)}`;

function buttons(query, { schedule, payload }, staff) {
  const path = pathOf(query);
  const pause = schedule.paused
    ? button("Resume", { tone: "first", work: () => post(`${path}/resume`, {}), done: "It goes on with the ticks from now on." })
    : button("Pause", { work: () => post(`${path}/pause`, {}), done: "The schedule rests.",
      question: { title: `Pause ${schedule.name}?`, text: "It has no ticks until it is resumed. Ticks that pass meanwhile are not made up.", yes: "Pause" } });
  const now = button("Create a task now", { work: () => postText(ofApp(appOf(query), "tasks"), taskText(schedule, payload)), done: ({ id }) => html`<a href=${link("task", { app: staff, id })}>The task</a> is created. The ticks stay as they are.`,
    question: { title: "Create a task now?", text: `${schedule.command} gets one task more, with the payload of the schedule. The ticks stay as they are.`, yes: "Create it" } });
  const away = async () => {
    await remove(path);
    go(addressOf("schedules", { app: staff }), { replace: true });
  };
  return html`${mayDo("schedules:pause") ? pause : nothing}${mayDo("tasks:create") && schedule.command ? now : nothing}
    ${mayDo("schedules:update") ? html`${schedule.command ? html`<a class="button" href=${here({ tab: "change" })}>Change</a>` : nothing}
      ${button("Remove", { tone: "danger", work: away, done: `${schedule.name} is removed.`,
        question: { title: `Remove ${schedule.name}?`, text: "It has no ticks any more. Tasks that it created stay.", yes: "Remove", isDanger: true } })}` : nothing}`;
}

function standing({ paused, error, next, command }) {
  const say = (tone, title, text) => html`<div class="card verdict ${tone}"><strong>${title}</strong><p>${text}</p></div>`;
  if (paused) return say("warn", "The schedule rests", "It has no ticks until it is resumed.");
  if (error) return say("bad", command ? "Its task cannot be created" : "Its resync cannot begin", html`${error}. It is tried again every minute.`);
  if (!next.length) return say("warn", "No tick is ahead", "No date of the next nine years is meant.");
  return say("good", html`The next tick is ${moment(next[0])}`, command ? "A task is created then." : "The repository is resynced then.");
}

const meaning = (options, word) => {
  const [, title, hint] = options.find(([known]) => known === word) ?? [];
  return title ? `${title}: ${hint}` : word;
};

const ticks = ({ next, zone }) => table({
  caption: "The next ticks", rows: next.map((at) => ({ at })), none: empty("No ticks", "A schedule that rests has none."),
  columns: [{ label: `In ${zone}`, kind: "wide", cell: ({ at }) => inZone(at, zone) }, { label: "From now", kind: "tight", cell: ({ at }) => moment(at) }],
});

function shown({ data, query }, staff) {
  const { schedule, payload } = data;
  const { cron, zone, command } = schedule;
  return html`${standing(schedule)}
    <div class="columns">
      ${section("When", html`<div class="card padded">${pairs([["Times", cronWords(cron) ?? "as the line says"], ["Cron line", code(cron)], ["Time zone", zone],
        ["Missed ticks", meaning(MISSED, schedule.missed)], ["The task before has not ended", meaning(OVERLAP, schedule.overlap)]])}</div>`)}
      ${command ? section("What it creates", html`<div class="card padded">${pairs([["Command", html`<a class="mono" href=${link("queue", { app: staff, command })}>${command}</a>`],
        ["Priority", schedule.priority], ["Attempts", schedule.max_attempts === undefined ? "as its queue says" : `at most ${count(schedule.max_attempts)}`],
        schedule.webhook && ["Told of each end", code(schedule.webhook)], payload === "null" && ["Payload of each task", "none (null)"]])}</div>
        ${payload === "null" ? nothing : html`<h3>Payload of each task</h3><pre class="text" tabindex="0" role="group" aria-label="Payload of each task">${payload}</pre>`}`)
    : section("What it does", html`<div class="card padded">${pairs([["Resyncs", html`<a href=${link("watch", { app: staff, id: schedule.repository_id })}>${code(schedule.repository_id)}</a>`]])}</div>`)}
    </div>
    <div class="columns">
      ${section("Next ticks", ticks(schedule))}
      ${section("What came of it", html`<div class="card padded">${pairs([
        ...(command ? [["Last task", schedule.last_task ? html`<a href=${link("task", { app: staff, id: schedule.last_task })}>${code(schedule.last_task)}</a><br>created ${moment(schedule.last_task_at)}` : "none yet"]] : []),
        ["Missed", plural(schedule.missed_ticks, "tick")], ["Skipped", plural(schedule.skipped_ticks, "tick")],
        ["Created", moment(schedule.created_at)], ["Changed", moment(schedule.updated_at)]])}</div>`)}
    </div>`;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
}

const numberOf = (fields, name) => (textOf(fields, name) === undefined ? undefined : Number(textOf(fields, name)));

// Sends the form. A new schedule never takes the place of one that is there.
async function send(event, { query, data, local }, staff) {
  event.preventDefault();
  const fields = new FormData(event.target);
  const name = data.schedule?.name ?? textOf(fields, "name");
  const payload = textOf(fields, "payload") ?? "null";
  const body = { cron: textOf(fields, "cron"), zone: textOf(fields, "zone"), command: textOf(fields, "command"), priority: numberOf(fields, "priority"),
    max_attempts: numberOf(fields, "max_attempts"), webhook: textOf(fields, "webhook"), missed: local.missed ?? data.schedule?.missed, overlap: local.overlap ?? data.schedule?.overlap };
  const refused = (faults) => {
    Object.assign(local, { isBusy: false, faults });
    redraw();
    document.querySelector("[aria-invalid='true']")?.focus();
  };
  const wrong = isJson(payload);
  if (!name || wrong) return refused({ ...(name ? {} : { name: "A schedule needs a name" }), ...(wrong ? { payload: wrong } : {}) });
  Object.assign(local, { isBusy: true, faults: {} });
  redraw();
  try {
    const path = pathOf(query, name);
    const isTaken = !data.schedule && await get(path).then(() => true, (problem) => (problem.status === 404 ? false : Promise.reject(problem)));
    if (isTaken) return refused({ name: "There is a schedule with this name" });
    await putText(path, `{"payload":${payload},${JSON.stringify(body).slice(1)}`);
    tell(data.schedule ? "The schedule is changed." : "The schedule is created.");
    go(addressOf("schedule", { app: staff, name }), { replace: true });
  } catch (problem) {
    refused(faultsOf(problem));
  }
}

function form(state, staff) {
  const { data: { schedule, payload }, local } = state;
  const faults = local.faults ?? {};
  const cron = local.cron ?? schedule?.cron ?? "";
  const chosen = (name, options, text) => choice({ name, label: text, options, value: local[name] ?? schedule?.[name] ?? options[0][0], changed: (value) => { local[name] = value; redraw(); } });
  const typed = (event) => { local.cron = event.target.value; redraw(); };
  return html`<form class="card padded form wide-form" @submit=${(event) => send(event, state, staff)} novalidate>
    <div class="form-fields">
      ${schedule ? nothing : field({ name: "name", label: "Name", faults, required: true, isMono: true, hint: "Letters, digits and _.- : nightly-report" })}
      ${field({ name: "cron", label: "Cron line", faults, required: true, isMono: true, value: schedule?.cron, changed: typed,
        hint: cronWords(cron) ?? "Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly" })}
      ${field({ name: "zone", label: "Time zone", faults, value: schedule?.zone ?? "UTC", hint: "By its IANA name: Europe/Rome" })}
      ${chosen("missed", MISSED, "Ticks that passed while no server ran")}
      ${chosen("overlap", OVERLAP, "A tick while the task before has not ended")}
    </div>
    <div class="form-fields">
      ${field({ name: "command", label: "Command of its tasks", faults, required: true, isMono: true, value: schedule?.command, hint: "The queue that its tasks go to" })}
      ${field({ name: "payload", label: "Payload of each task, as JSON", faults, isMono: true, isLong: true, rows: 8, value: payload ?? "null", hint: "Kept byte for byte" })}
      ${field({ name: "priority", label: "Priority", type: "number", faults, value: String(schedule?.priority ?? 0), hint: "0 to 9; 9 goes first" })}
      ${field({ name: "max_attempts", label: "Attempts at most", type: "number", faults, value: schedule?.max_attempts === undefined ? undefined : String(schedule.max_attempts), hint: "Empty: as the queue says" })}
      ${field({ name: "webhook", label: "Told when a task ends", faults, isMono: true, value: schedule?.webhook, hint: "A web address that gets a message at each end; empty: none" })}
      ${fault(faults[""])}
      <div class="buttons"><button class="button first" type="submit" ?disabled=${local.isBusy}>${schedule ? "Change the schedule" : "Create the schedule"}</button>
        <a class="button" href=${schedule ? here({ tab: undefined }) : link("schedules", { app: staff })}>Cancel</a></div>
    </div></form>
    ${schedule ? html`<p class="muted">With another cron line or time zone the schedule starts from now: no tick from before the change is made up.</p>` : nothing}`;
}

function view(state) {
  const { data, query } = state;
  const { schedule, owner } = data;
  const staff = isStaff() ? owner.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${owner.app_name}</a> / <a href=${link("schedules", { app: staff })}>Schedules</a> /`;
  if (!schedule || query.tab === "change") {
    const title = schedule ? `Change ${schedule.name}` : "Create a schedule";
    const body = mayDo("schedules:update") ? form(state, staff)
      : html`<div class="card state" role="alert"><strong>You may not do this</strong><p>Your token lacks the permission schedules:update.</p></div>`;
    return html`${heading(title, { crumbs })}<div class="sections">${body}</div>`;
  }
  return html`${heading(schedule.name, { crumbs, text: scheduleBadge(schedule), buttons: buttons(query, data, staff) })}<div class="sections">${shown(state, staff)}</div>`;
}

// What a person writes stays as it is: a form does not refresh itself.
const refreshMs = ({ query }) => (query.tab ? 0 : 5000);

export default { title: (data) => data.schedule?.name ?? "Create a schedule", load, view, refreshMs };
