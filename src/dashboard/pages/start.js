// From nothing to a first delivery: register an app, choose a repository and what of it, and see it arrive. The
// address says how far somebody has come: `app`, then `watch`.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appItself, appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { addressOf, go, link, redraw } from "../core/router.js";
import { count, plural } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge, changeBadge, changeWords, code, fillsQueue, moment, pairs, statusOf } from "../parts/words.js";
import { goesTo } from "../parts/fields.js";
import { totalOf } from "../tasks/watch-tasks.js";
import { testButton } from "../parts/acts.js";
import { choice, fault, faultsOf, field, textOf } from "../parts/forms.js";
import { repositoryForm } from "../parts/repository-form.js";

const ARRIVALS_SHOWN = 20;
// The secrets of an app that was registered here, and of the sinks of watches: shown once, and gone with the tab.
const secrets = new Map();
const sinkSecrets = new Map();

async function load(query, signal) {
  const app = appOf(query);
  if (!app) return { step: 1 };
  const own = await appSeen(app, signal);
  if (!query.watch) return { step: 2, app: own };
  const path = ofApp(app, `repositories/${part(query.watch)}`);
  const watch = await get(path, {}, signal);
  const pulls = (watch.sink?.kind ?? (own.base_url ? "endpoint" : "pull")) === "pull";
  // What no worker has ended yet is pending.
  const isUntouched = fillsQueue(watch) && watch.branches.every(({ round, held_commit: held }) => !held && !round?.position);
  const asked = { repository_id: query.watch, limit: ARRIVALS_SHOWN, status: pulls || isUntouched ? "pending" : undefined };
  const deliveries = await get(ofApp(app, "deliveries"), asked, signal);
  return { step: 3, app: own, watch, pulls, deliveries };
}

const STEPS = ["Register an app", "Choose a repository", "See it arrive"];

const steps = (at) => html`<ol class="steps" aria-label="Steps">${STEPS.map((text, index) => html`
  <li class=${index + 1 < at ? "done" : ""} aria-current=${index + 1 === at ? "step" : nothing}><span class="step-number">${index + 1}</span>${text}
    ${index + 1 < at ? html`<span class="hidden">done</span>` : nothing}</li>`)}</ol>`;

const RECEIVES = [["endpoint", "At a web address", "Tidings sends each change to the address as a signed request."],
  ["pull", "By asking", "Nothing is sent. The app asks for its changes with its token."],
  ["stream", "From a stream", "Tidings publishes each change to NATS JetStream."],
  ["tasks", "By workers", "Each change becomes a task, which a worker claims and ends."]];

async function register(event, local) {
  event.preventDefault();
  const fields = new FormData(event.target);
  const kind = local.receives ?? "endpoint";
  const hasAddress = kind === "endpoint" || kind === "stream";
  const body = { app_name: textOf(fields, "app_name"), email: textOf(fields, "email"), base_url: hasAddress ? textOf(fields, "base_url") : undefined };
  if (kind === "stream" && body.base_url && !/^(nats|tls):/.test(body.base_url)) {
    Object.assign(local, { faults: { base_url: "Must be a nats or tls address" } });
    return redraw();
  }
  Object.assign(local, { isBusy: true, faults: {} });
  redraw();
  try {
    const made = await post("apps/onboard", body);
    secrets.set(made.app_id, made);
    go(addressOf("start", { app: made.app_id, goes: kind === "tasks" ? kind : undefined }));
  } catch (problem) {
    Object.assign(local, { isBusy: false, faults: faultsOf(problem) });
    redraw();
    document.querySelector("[aria-invalid='true']")?.focus();
  }
}

function registration(local) {
  const kind = local.receives ?? "endpoint";
  const faults = local.faults ?? {};
  return html`<form class="card padded form" @submit=${(event) => register(event, local)} novalidate>
    ${field({ name: "app_name", label: "Name of the app", faults, required: true, hint: "For example: search index" })}
    ${field({ name: "email", label: "Contact", type: "email", faults, required: true, hint: "The mail address of the person or team that runs the app" })}
    ${choice({ name: "receives", label: "How the app receives changes", options: RECEIVES, value: kind, changed: (value) => { local.receives = value; redraw(); } })}
    ${kind === "pull" || kind === "tasks" ? nothing : field({ name: "base_url", label: kind === "stream" ? "Address of the stream" : "Address of the endpoint", faults, required: true, isMono: true,
      hint: kind === "stream" ? "The address of a NATS server (nats or tls) that ends with the prefix of all subjects" : "An https address. Tidings adds /create, /update and /delete." })}
    ${fault(faults[""])}
    <div class="buttons"><button class="button first" type="submit" ?disabled=${local.isBusy}>Register the app</button></div></form>`;
}

const copied = (text, local, name) => async () => {
  await navigator.clipboard?.writeText(text).catch(() => {});
  local.copied = name;
  redraw();
};

const secretRow = (local) => (name, label, text) => html`<div class="secret"><span class="label">${label}</span><code>${text}</code>
    <button class="button" type="button" aria-label="Copy the ${name}" @click=${copied(text, local, name)}>${local.copied === name ? "Copied" : "Copy"}</button></div>`;

// The key of the watch's own sink: no other key signs what goes there.
const sinkShownOnce = (text, local) => section("Shown once, for this watch", html`<div class="card padded secrets"><p>Copy it now. It is not shown again. The secret of the app does not sign what is sent here.</p>
  ${secretRow(local)("signing secret of the watch", "Signing secret: the receiver of this watch checks signatures with it", text)}</div>`);

function shownOnce(made, local) {
  const secret = secretRow(local);
  return section("Shown once", html`<div class="card padded secrets"><p>Copy both now. They are not shown again.</p>
    ${made.warning ? html`<p role="status">${badge("warn", "same name")} ${made.warning}</p>` : nothing}
    ${secret("token", "Token: the app sends it to the API", made.token)}${secret("signing secret", "Signing secret: the app checks signatures with it", made.signing_secret)}</div>`);
}

const receivesAt = (app, goes) => section("Where it goes", html`<div class="card padded bar acts"><span class="grow">${app.base_url
  ? html`Changes are sent to <span class="mono">${app.base_url}</span>.` : goes === "tasks" ? "Workers claim the tasks of the app; nothing is sent." : "The app asks for its changes; nothing is sent."}</span>
  ${app.base_url && mayDo("apps:test") ? testButton(`${appItself(app.app_id)}/test`) : nothing}</div>`);

function arrival({ watch, app, deliveries, pulls }, staff) {
  const rows = deliveries.items;
  const first = rows.find((row) => row.state === "delivered");
  const failed = rows.find((row) => row.state === "failed" || row.state === "parked");
  const [branch] = watch.branches;
  const total = branch?.round?.total;
  const say = (tone, title, text) => html`<div class="card verdict ${tone}" role="status"><strong>${title}</strong><p>${text}</p></div>`;
  // No round begins before the app asks.
  const waits = (row) => row.round || (row.head_commit && row.head_commit !== row.held_commit);
  if (pulls && watch.branches.some(waits)) return say("good", "Changes are ready to be asked for", html`${code("tidings listen --pull")} or GET /api/repositories/${watch.repository_id}/pending takes them.`);
  if (fillsQueue(watch)) {
    const work = arrivalOfTasks(watch, first, staff, say);
    if (work) return work;
  }
  if (first && !watch.branches.some((row) => row.round)) return watch.dead_letters
    ? say("warn", `The app has everything but ${plural(watch.dead_letters, "change")}`, html`The receiver refused ${watch.dead_letters === 1 ? "it" : "them"}. <a href=${link("letters", { app: staff, watch: watch.repository_id })}>Look at what it said</a>.`)
    : say("good", "The app has everything", html`The first delivery arrived ${moment(first.settled_at)}. Each push is delivered from now on.`);
  if (first) return say("good", "The first delivery arrived", html`${plural(Math.max(1, branch?.round?.position ?? 1), "change")} of ${count(total)} so far.`);
  if (failed) return say("bad", "The receiver did not take it", html`${failed.last_status ? `It answered ${failed.last_status}.` : "No answer came."} <a href=${link("delivery", { app: staff, id: failed.id })}>Look at ${failed.last_status ? "its answer" : "the reason"}</a>; the change is tried again by itself.`);
  const empties = watch.branches.every((row) => row.state === "empty" || (!row.round && row.held_commit));
  if (watch.branches.length && empties && watch.effective_state !== "pending") return say("", "Nothing to deliver", watch.effective_reason ?? "No file of the repository matches. The first that does is delivered.");
  return say("", "Waiting for the first delivery", watch.effective_reason ?? `${app.app_name} receives the first change once the repository was read.`);
}

// How the first tasks of a watch stand; null: nothing is to be said of tasks.
function arrivalOfTasks(watch, first, staff, say) {
  const { command } = watch.sink;
  const queue = html`<a href=${link("queue", { app: staff, command })}>the queue ${command}</a>`;
  const [unfinished, claimed] = [totalOf(watch, "unfinished"), totalOf(watch, "claimed")];
  if (first && !unfinished && !watch.branches.some((row) => row.round)) return watch.dead_letters
    ? say("warn", `Workers did everything but ${plural(watch.dead_letters, "change")}`, html`<a href=${link("letters", { app: staff, watch: watch.repository_id })}>Look at the dead letters</a>.`)
    : say("good", "Workers did everything", html`The first task ended ${moment(first.settled_at)}. The changes of each push are tasks from now on.`);
  if (first) return say("good", "Workers are at it", html`${plural(unfinished, "task")} of ${queue} ${unfinished === 1 ? "is" : "are"} left, ${count(claimed)} with workers.`);
  if (claimed) return say("good", "A worker has the first task", html`${count(claimed)} of ${plural(unfinished, "task")} of ${queue}.`);
  return unfinished ? say("good", "Tasks are ready for workers", html`${code(`tidings worker start ${command} --exec PROGRAM`)} or POST /api/tasks/claim takes them from ${queue}.`) : null;
}

function arrivals(data) {
  const { watch, app, deliveries } = data;
  const staff = isStaff() ? app.app_id : undefined;
  return html`${arrival(data, staff)}
    ${section("What arrives", table({ caption: "Deliveries of this watch, the newest first", rows: deliveries.items,
      none: empty("Nothing yet", data.pulls ? "What is pending is listed once the app has asked for the first of it." : "This page looks again each second."),
      columns: [
        { label: "Path", kind: "wide", cell: (row) => html`<a href=${link("delivery", { app: staff, id: row.id })}>${row.path}</a><span class="sub">${changeWords(row.type)}</span>` },
        { label: "State", kind: "tight", cell: (row) => changeBadge(row.state) },
        ...(fillsQueue(watch) ? [] : [{ label: "Answer", kind: "num", cell: statusOf }]),
        { label: "When", kind: "tight", cell: (row) => moment(row.settled_at) }] }))}
    ${section("What was set up", html`<div class="card padded">${pairs([["App", html`<a href=${link("app", { app: staff })}>${app.app_name}</a>`],
      ["Repository", html`<a href=${link("watch", { app: staff, id: watch.repository_id })}>${watch.repository}</a>`],
      watch.watch_name && ["Name of the watch", code(watch.watch_name)],
      ["Include", watch.include.length ? code(watch.include.join(" ")) : "everything"], ["Exclude", watch.exclude.length ? code(watch.exclude.join(" ")) : "nothing"],
      ["Goes to", goesTo(watch, staff, app.base_url ?? "the program that asks with the token of the app")]])}</div>`)}`;
}

function view({ data, local, query }) {
  const { step, app } = data;
  const isAllowed = mayDo(step === 1 ? "apps:register" : step === 2 ? "watches:create" : "watches:read");
  if (!isAllowed) {
    return html`${heading("Set up a watch")}<div class="card state" role="alert"><strong>You may not do this</strong>
      <p>${step === 1 ? "Your token lacks the permission apps:register." : "Your token lacks the permission watches:create."}</p></div>`;
  }
  const made = secrets.get(app?.app_id);
  const done = (watch) => {
    if (watch.sink?.signing_secret) sinkSecrets.set(watch.repository_id, watch.sink.signing_secret);
    go(addressOf("start", { app: isStaff() ? app.app_id : undefined, watch: watch.repository_id }));
  };
  const sinkSecret = sinkSecrets.get(query.watch);
  const body = () => {
    if (step === 1) return section("The app that receives", registration(local));
    if (query.goes === "tasks") local.goes ??= "tasks";
    if (step === 2) return html`${made ? shownOnce(made, local) : nothing}${receivesAt(app, query.goes)}${section("The repository", repositoryForm(app, local, done))}`;
    return html`${sinkSecret ? sinkShownOnce(sinkSecret, local) : nothing}${made ? shownOnce(made, local) : nothing}${arrivals(data)}`;
  };
  return html`${heading(STEPS[step - 1], { crumbs: app ? html`<a href=${link("app", { app: isStaff() ? query.app : undefined })}>${app.app_name}</a> /` : nothing,
    text: ["An app is a program that receives the changes of repositories.", "No change is sent before the last button; a test is sent when you ask for it.", "This page shows what becomes of the first changes."][step - 1] })}
    ${steps(step)}<div class="sections">${body()}</div>`;
}

export default { title: (data) => STEPS[data.step - 1], load, view, refreshMs: ({ data }) => (data?.step === 3 ? 1000 : 0) };
