// How far a watch is whose changes become tasks, and the change that a task is about.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part } from "../core/api.js";
import { mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { commit, count, plural, ref } from "../core/format.js";
import { changeWords, code, fillsQueue, pairs } from "../parts/words.js";

// Ten dead tasks in a row block a branch.
const DEAD_MAX = 10;

const WAITS = {
  deletes: "Creates and updates wait until every delete has ended.",
  window: "The next change waits until a task of the branch ends.",
  queue: "The next change waits until workers claim tasks of the queue.",
  app: "The next change waits until tasks of the app end.",
};

// The tasks of one branch, below its round. What a watch of one branch waits for stands above.
export function tasksOfBranch({ tasks }, { sink, branches }) {
  if (!tasks) return nothing;
  const waits = branches.length > 1 && tasks.waits_for;
  return html`<span class="sub">${count(tasks.unfinished)} of ${plural(sink.window, "task")}, ${count(tasks.claimed)} with workers${tasks.left
    ? `, ${count(tasks.left)} to come` : ""}</span>${waits ? html`<span class="sub">${WAITS[waits] ?? waits}</span>` : nothing}`;
}

// A number of the tasks of all branches of a watch.
export const totalOf = ({ branches }, name) => branches.reduce((total, { tasks }) => total + (tasks?.[name] ?? 0), 0);

// The tasks of all branches: which queue they fill, who has them, and what the rest waits for.
export function tasksOfWatch(watch, staff) {
  const { sink, branches } = watch;
  const of = (name) => totalOf(watch, name);
  const dead = Math.max(0, ...branches.map(({ tasks }) => tasks?.dead_in_a_row ?? 0));
  const waits = [...new Set(branches.map(({ tasks }) => tasks?.waits_for).filter(Boolean))];
  const isIdle = of("unfinished") > 0 && of("claimed") === 0 && of("aside") < of("unfinished");
  return html`<div class="card padded">${pairs([
    ["Queue", html`<a href=${link("queue", { app: staff, command: sink.command })}>${sink.command}</a>`],
    ["Unfinished", `${count(of("unfinished"))}; at most ${count(sink.window)} of a branch`],
    ["With workers", isIdle ? html`none; ${code(`tidings worker start ${sink.command} --exec PROGRAM`)} starts one` : count(of("claimed"))],
    of("aside") && ["Set aside", count(of("aside"))],
    of("deletes") && ["Deletes to end", `${count(of("deletes"))}; creates and updates come after them`],
    of("left") && ["Not yet tasks", plural(of("left"), "change")],
    waits.length && ["Waits", waits.map((name) => WAITS[name] ?? name).join(" ")],
    dead && ["Dead in a row", `${count(dead)}; ${DEAD_MAX} block the branch`]])}</div>`;
}

// The change of a task: where it comes from, and where its end is seen.
// `watch`: as the API shows it; missing: it is gone, or may not be read.
export const changeOfTask = (change, watch, staff) => html`<div class="card padded">${pairs([
  !isWholeRound(change) && ["Path", html`<span class="mono">${change.path}</span>`], !isWholeRound(change) && ["Change", changeWords(change.operation)],
  ["Watch", html`<a href=${link("watch", { app: staff, id: change.repository_id })}>${watch?.repository ?? change.repository_id}</a>, ${ref(change.branch)}`],
  ["Round", html`<a href=${link("watch", { app: staff, id: change.repository_id, tab: "changes", branch: change.branch, round: change.round })}>${change.round}</a>${isWholeRound(change)
    ? ", all of it" : `, position ${count(change.position)}`}`],
  ["Commit", change.commit ? html`<code title=${change.commit}>${commit(change.commit)}</code>` : "the branch is gone"],
  ["Delivery", html`<a href=${link("delivery", { app: staff, id: change.delivery_id })}>${code(change.delivery_id)}</a>`],
  ["Its end", "Succeeded, it settles the change. Failed, dead or cancelled, it makes a dead letter, whose redrive is a task again. The task goes, the delivery stays."]])}</div>`;

// Whether a change stands for a whole round that is one task.
export const isWholeRound = (change) => change.operation === "round";

// The watch of the change of a task; nothing if it is gone, or may not be read.
export async function watchOf(app, change, signal) {
  if (!change || !mayDo("watches:read")) return undefined;
  return get(ofApp(app, `repositories/${part(change.repository_id)}`), {}, signal).catch((problem) => {
    if (problem.status === 404) return undefined;
    throw problem;
  });
}

// Whether the changes of a watch become tasks; asked for once. A watch that is gone, or that may not be read, is
// taken for one that sends.
export async function isOfTasks(app, watch, signal, { local }) {
  if (!mayDo("watches:read")) return false;
  local.isOfTasks ??= await get(ofApp(app, `repositories/${part(watch)}`), {}, signal).then(fillsQueue, (problem) => {
    if (problem.status === 404) return false;
    throw problem;
  });
  return local.isOfTasks;
}
