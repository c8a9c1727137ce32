// One task: where it stands, what it works on and what came of it.
import { html, nothing } from "../vendor/lit-html.js";
import { get, getText, part, post } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { count, bytes } from "../core/format.js";
import { membersOf, spaced } from "../core/json.js";
import { heading } from "../parts/shell.js";
import { section } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { button } from "../parts/dialog.js";
import { code, moment, pairs } from "../parts/words.js";
import { taskBadge } from "../tasks/tasks.js";
import { changeOfTask, isWholeRound, watchOf } from "../tasks/watch-tasks.js";

const OPEN = ["waiting", "ready", "claimed", "aside"];
const ENDED = ["failed", "dead", "cancelled"];

const pathOf = (query) => ofApp(appOf(query), `tasks/${part(query.id ?? "")}`);

async function load(query, signal, state) {
  const [text, owner] = await Promise.all([found(query, signal, state.local), appSeen(appOf(query), signal)]);
  if (text) {
    const task = JSON.parse(text);
    return { task, bodies: membersOf(text), owner, watch: await watchOf(appOf(query), task.change, signal) };
  }
  return { ended: await get(ofApp(appOf(query), `deliveries/${part(state.local.delivery)}`), {}, signal), owner };
}

// The task, as the text that was sent; null: it went with its end, and the delivery of its change is known. It does not come back.
async function found(query, signal, local) {
  local.delivery ??= query.delivery;
  if (local.hasEnded) return null;
  try {
    const text = await getText(pathOf(query), signal);
    local.delivery = JSON.parse(text).change?.delivery_id;
    return text;
  } catch (problem) {
    if (problem.status !== 404 || !local.delivery || !mayDo("deliveries:read")) throw problem;
    local.hasEnded = true;
    return null;
  }
}

// What the end of a task did to its change.
const ENDED_AS = {
  delivered: ["good", "The task was completed", "Its change is settled."],
  parked: ["bad", "The task ended without success", "Its change became a dead letter. A redrive makes it a task again."],
};

function ended({ ended: row, owner }, query) {
  const staff = isStaff() ? owner.app_id : undefined;
  const [tone, title, text] = ENDED_AS[row.state] ?? ["", "The task is gone", "Its round ended before its change was settled, or its change is a task again. The delivery says how it stands."];
  return html`${heading("Task", { crumbs: crumbs(owner), text: code(query.id) })}
    <div class="sections"><div class="card verdict ${tone}" role="status"><strong>${title}</strong><p>${text}</p>
      <p><a href=${link("delivery", { app: staff, id: row.id })}>The delivery of ${row.path}</a>${row.dead_letter_id
        ? html` · <a href=${link("letter", { app: staff, id: row.dead_letter_id })}>its dead letter</a>` : nothing}${row.task_id && row.task_id !== query.id
        ? html` · <a href=${link("task", { app: staff, id: row.task_id, delivery: row.id })}>its task now</a>` : nothing}</p></div></div>`;
}

// Who or what created a task: its kind, and its id.
function creator(origin) {
  const [kind, ...name] = origin.split(" ");
  return html`${kind} ${code(name.join(" "))}`;
}

function crumbs(owner, command) {
  const staff = isStaff() ? owner.app_id : undefined;
  return html`<a href=${link("app", { app: staff })}>${owner.app_name}</a> / <a href=${link("queues", { app: staff })}>Queues</a> /
    ${command ? html`<a href=${link("queue", { app: staff, command })}>${command}</a> /` : nothing}`;
}

function buttons(path, task) {
  const isClaimed = task.state === "claimed";
  const cancel = button("Cancel", { tone: "danger", work: () => post(`${path}/cancel`, {}), done: isClaimed ? "Its worker may still end it, for at most 60 seconds." : "The task is cancelled.",
    question: { title: "Cancel this task?", text: isClaimed ? "A worker has it, and may still end it for at most 60 seconds." : task.change
      ? "Its change becomes a dead letter, which can be redriven later." : "It is not handed out any more. It can be redriven later.", yes: "Cancel it", no: "Keep it", isDanger: true } });
  const again = button("Redrive", { tone: "first", work: () => post(`${path}/redrive`, {}), done: "The task is ready again." });
  return html`${OPEN.includes(task.state) && !task.cancelling && mayDo("tasks:cancel") ? cancel : nothing}${ENDED.includes(task.state) && mayDo("tasks:redrive") ? again : nothing}`;
}

// `text`: JSON as it was sent.
const body = (title, text, none) => section(title, text === undefined ? html`<div class="card">${empty(none, null)}</div>`
  : html`<pre class="text" tabindex="0" role="group" aria-label=${title}>${spaced(text)}</pre>`);

const payload = (task, bodies) => (task.payload_left_out ? body("Payload", undefined, "It holds the content of a file: your token lacks the permission contents:read.")
  : body("Payload", bodies.get("payload"), "No payload"));

const artifacts = (path, task) => (task.artifacts ?? []).length === 0 ? nothing : section("Artifacts", html`<div class="card padded">${pairs(
  task.artifacts.map((one) => [html`<a href=${`/api/${path}/artifacts/${part(one.name)}`} download=${one.name}>${one.name}</a>`,
    html`${bytes(one.bytes)}, ${one.content_type}, ${moment(one.created_at)}`]))}</div>`);

const ENDS = { completed: "completed", failed: "failed", nacked: "given back after a failed attempt", abandoned: "given back untried", expired: "ran out", voided: "void after a restore" };

const claims = (task) => (task.claims ?? []).length === 0 ? nothing : section("Workers that had it", html`<div class="card padded">${pairs(
  task.claims.map((one) => [moment(one.claimed_at), html`${code(one.worker)}, ${one.ended_at ? html`${ENDS[one.end] ?? one.end} ${moment(one.ended_at)}` : "has the task"}${one.reason ? html`: ${one.reason}` : nothing}`]))}</div>`);

function view({ data, query }) {
  if (data.ended) return ended(data, query);
  const { task, bodies, owner, watch } = data;
  const staff = isStaff() ? owner.app_id : undefined;
  return html`${heading("Task", { crumbs: crumbs(owner, task.command), text: taskBadge(task), buttons: buttons(pathOf(query), task) })}
    <div class="sections"><div class="columns">
      ${section("Where it stands", html`<div class="card padded">${pairs([
        ["Task", code(task.id)], task.error && ["Last word", task.error], ["Attempts", `${count(task.attempts)} of ${count(task.max_attempts)}`],
        ["Priority", task.priority], task.worker && ["Worker", code(task.worker)], task.run_at && ["Due", moment(task.run_at)],
        task.claimed_at && ["Claimed", moment(task.claimed_at)], task.claimed_until && ["Claimed until", moment(task.claimed_until)],
        task.ended_at && ["Ended", moment(task.ended_at)], task.kept_until && ["Kept until", moment(task.kept_until)],
        task.parent && ["Follows", html`<a href=${link("task", { app: staff, id: task.parent })}>${code(task.parent)}</a>`],
        task.webhook && ["Told of the end", code(task.webhook)],
        ["Created by", creator(task.origin)], ["Created", moment(task.created_at)]])}</div>`)}
      ${task.change ? section(isWholeRound(task.change) ? "The round" : "The change", changeOfTask(task.change, watch, staff)) : nothing}</div>
      ${bodies.has("progress") ? body("Progress", bodies.get("progress")) : nothing}
      ${payload(task, bodies)}
      ${task.change ? nothing : body("Result", bodies.get("result"), OPEN.includes(task.state) ? "No result yet" : "No result")}
      ${artifacts(pathOf(query), task)}
      ${claims(task)}
    </div>`;
}

export default { title: (data, query) => data.task?.id ?? query.id, load, view };
