// One task: where it stands, what it works on and what came of it.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appItself, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { count, bytes } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { section } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { button } from "../parts/dialog.js";
import { code, moment, pairs } from "../parts/words.js";
import { taskBadge } from "../parts/tasks.js";

const OPEN = ["waiting", "ready", "claimed", "aside"];
const ENDED = ["failed", "dead", "cancelled"];

const pathOf = (query) => ofApp(appOf(query), `tasks/${part(query.id ?? "")}`);

async function load(query, signal) {
  const [task, owner] = await Promise.all([get(pathOf(query), {}, signal), get(appItself(appOf(query)), {}, signal)]);
  return { task, owner };
}

function buttons(path, task) {
  const isClaimed = task.state === "claimed";
  const cancel = button("Cancel", { tone: "danger", work: () => post(`${path}/cancel`, {}), done: isClaimed ? "Its worker may still end it, for at most 60 seconds." : "The task is cancelled.",
    question: { title: "Cancel this task?", text: isClaimed ? "A worker has it, and may still end it for at most 60 seconds." : "It is not handed out any more. It can be sent again later.", yes: "Cancel it", isDanger: true } });
  const again = button("Send again", { tone: "first", work: () => post(`${path}/redrive`, {}), done: "The task is ready again." });
  return html`${OPEN.includes(task.state) && !task.cancelling && mayDo("tasks:cancel") ? cancel : nothing}${ENDED.includes(task.state) && mayDo("tasks:redrive") ? again : nothing}`;
}

const body = (title, value, none) => section(title, value === undefined || value === null ? html`<div class="card">${empty(none, null)}</div>`
  : html`<pre class="text" tabindex="0" role="group" aria-label=${title}>${JSON.stringify(value, null, 2)}</pre>`);

const artifacts = (path, task) => (task.artifacts ?? []).length === 0 ? nothing : section("Artifacts", html`<div class="card padded">${pairs(
  task.artifacts.map((one) => [html`<a href=${`/api/${path}/artifacts/${part(one.name)}`} download=${one.name}>${one.name}</a>`,
    html`${bytes(one.bytes)}, ${one.content_type}, ${moment(one.created_at)}`]))}</div>`);

const ENDS = { completed: "completed", failed: "failed", nacked: "given back after a failed attempt", abandoned: "given back untried", expired: "ran out", voided: "void after a restore" };

const claims = (task) => (task.claims ?? []).length === 0 ? nothing : section("Claims", html`<div class="card padded">${pairs(
  task.claims.map((one) => [moment(one.claimed_at), html`${code(one.worker)}, ${one.ended_at ? html`${ENDS[one.end] ?? one.end} ${moment(one.ended_at)}` : "has the task"}${one.reason ? html`: ${one.reason}` : nothing}`]))}</div>`);

function view({ data, query }) {
  const { task, owner } = data;
  const staff = isStaff() ? owner.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${owner.app_name}</a> / <a href=${link("queues", { app: staff })}>Queues</a> /
    <a href=${link("queue", { app: staff, command: task.command })}>${task.command}</a> /`;
  return html`${heading("Task", { crumbs, text: taskBadge(task), buttons: buttons(pathOf(query), task) })}
    <div class="sections">
      ${section("Where it stands", html`<div class="card padded">${pairs([
        ["Task", code(task.id)], task.error && ["Last word", task.error], ["Attempts", `${count(task.attempts)} of ${count(task.max_attempts)}`],
        ["Priority", task.priority], task.worker && ["Worker", code(task.worker)], task.run_at && ["Due", moment(task.run_at)],
        task.claimed_at && ["Claimed", moment(task.claimed_at)], task.claimed_until && ["Claimed until", moment(task.claimed_until)],
        task.ended_at && ["Ended", moment(task.ended_at)], task.kept_until && ["Kept until", moment(task.kept_until)],
        task.parent && ["Follows", html`<a href=${link("task", { app: staff, id: task.parent })}>${code(task.parent)}</a>`],
        task.webhook && ["Told of the end", code(task.webhook)],
        ["Created by", task.origin], ["Created", moment(task.created_at)]])}</div>`)}
      ${task.progress === undefined || task.progress === null ? nothing : body("Progress", task.progress)}
      ${body("Payload", task.payload, "The payload is gone")}
      ${body("Result", task.result, "No result yet")}
      ${artifacts(pathOf(query), task)}
      ${claims(task)}
    </div>`;
}

export default { title: (data) => data.task.id, load, view };
