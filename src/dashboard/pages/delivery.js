// One delivery: what was sent, what the receiver answered each time, and when it is tried next.
import { html } from "../vendor/lit-html.js";
import { get, part } from "../core/api.js";
import { appSeen, appOf, isStaff, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { commit, count, ref } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { section } from "../parts/table.js";
import { changeBadge, changeWords, code, moment, pairs } from "../parts/words.js";
import { empty } from "../parts/states.js";
import { tries } from "../parts/tries.js";
import { isOfTasks } from "../tasks/watch-tasks.js";
import { contentOf, contentSection } from "../parts/diff.js";
import { requestOf, requestSection } from "../parts/request-body.js";

async function load(query, signal, state) {
  const app = appOf(query);
  const [delivery, own] = await Promise.all([get(ofApp(app, `deliveries/${part(query.id ?? "")}`), {}, signal), appSeen(app, signal)]);
  const isTask = await isOfTasks(app, delivery.repository_id, signal, state);
  return { delivery, app: own, isTask, content: await contentOf(app, delivery.id, signal, state), request: await requestOf(app, delivery.id, signal, state) };
}

// Who had a task is shown on its page, as long as the task is there.
function work(row, staff) {
  const none = row.task_id ? empty("Workers do this change", html`<a href=${link("task", { app: staff, id: row.task_id, delivery: row.id })}>Its task</a> says who has it, and who had it.`)
    : row.settled_at ? empty("A worker ended it", "The task went with its end, and with it who had it.") : empty("It is no task yet", "The page of its watch says what it waits for.");
  return section("Work", html`<div class="card">${none}</div>`);
}

function view({ data }) {
  const { delivery: row, app, isTask } = data;
  const staff = isStaff() ? app.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${app.app_name}</a> / <a href=${link("deliveries", { app: staff, path: row.path, exact: 1, base64: row.path_base64 })}>Deliveries of this path</a> /`;
  const none = row.state === "delivered" ? "It was acknowledged at the first try. Tries that were taken are kept only with delivery.history = all." : "It was not tried yet.";
  return html`${heading(row.path, { crumbs, text: changeBadge(row.state) })}
    <div class="sections"><div class="columns">
      ${section(isTask ? "What was handed over" : "What was sent", html`<div class="card padded">${pairs([
        ["Change", changeWords(row.type)], ["Branch", html`<a href=${link("watch", { app: staff, id: row.repository_id })}>${ref(row.branch)}</a>`],
        ["Round", html`<a href=${link("watch", { app: staff, id: row.repository_id, tab: "changes", branch: row.branch, round: row.round })}>${row.round}</a>, position ${count(row.position)}`],
        ["Content", row.blob ? code(commit(row.blob)) : "none"], row.previous_blob && ["Content before", code(commit(row.previous_blob))],
        ["Mode", row.mode ?? "–"], ["Delivery", code(row.id)],
        row.replay_of && ["Replay of", code(row.replay_of)]])}</div>`)}
      ${section("What became of it", html`<div class="card padded">${pairs([
        !isTask && ["Tries", count(row.attempts)], !isTask && ["Last answer", row.last_status ?? "–"],
        row.task_id && ["Task", html`<a href=${link("task", { app: staff, id: row.task_id, delivery: row.id })}>${code(row.task_id)}</a>`],
        ["Settled", moment(row.settled_at)], row.next_attempt_at && ["Next try", moment(row.next_attempt_at)],
        row.dead_letter_id && ["Dead letter", html`<a href=${link("letter", { app: staff, id: row.dead_letter_id })}>${code(row.dead_letter_id)}</a>`]])}</div>`)}</div>
      ${contentSection(data.content)}
      ${requestSection(data.request, isTask)}
      ${isTask ? work(row, staff) : section("Tries", tries(row.tries, none))}
    </div>`;
}

export default { title: (data) => data.delivery.path, load, view };
