// A repository, what gives access to it, and what of it is wanted: with the files that would be delivered,
// looked up again whenever the form changes.
import { html, nothing } from "../vendor/lit-html.js";
import { post } from "../core/api.js";
import { isStaff, mayDo, ofApp } from "../core/session.js";
import { link, redraw } from "../core/router.js";
import { count, commit, plural } from "../core/format.js";
import { ask } from "./dialog.js";
import { choice, fault, faultsOf, field, linesOf, textOf } from "./forms.js";

const LOOK_AFTER_MS = 500;
const ACCESS = [["public", "Public", "Anybody can read it."], ["token", "With a token", "A token of the Git host that may read it."],
  ["github-app", "With a GitHub App", "An App that is installed where the repository is."]];
const GOES = [["app", "Where the app receives", null], ["endpoint", "To another address", "For this repository only."],
  ["pull", "It is asked for", "With GET /api/repositories/{id}/pending."], ["stream", "Into a stream", "NATS JetStream, for this repository only."],
  ["tasks", "To workers", "Each change becomes a task of a queue."]];

// What the form says, as the API takes it; null: not enough to ask.
function bodyOf(form, local) {
  const fields = new FormData(form);
  const url = textOf(fields, "url");
  if (!url) return null;
  const body = { url, branch: textOf(fields, "branch") };
  for (const name of ["include", "exclude"]) {
    const globs = linesOf(fields.get(name));
    if (globs.length) body[name] = globs;
  }
  const access = local.access ?? "public";
  if (access === "token") {
    body.token = textOf(fields, "token");
    if (!body.token) return null;
  }
  if (access === "github-app") {
    const app = { app_id: textOf(fields, "app_id"), installation_id: Number(textOf(fields, "installation_id")) || undefined, private_key: textOf(fields, "private_key") };
    if (!app.app_id || !app.installation_id || !app.private_key) return null;
    body.github_app = app;
  }
  return body;
}

function sinkOf(form, local) {
  const kind = local.goes ?? "app";
  if (kind === "app") return undefined;
  if (kind === "tasks") return { kind, command: textOf(new FormData(form), "sink_command") };
  return kind === "pull" ? { kind } : { kind, url: textOf(new FormData(form), "sink_url") };
}

function changed(event, app, local) {
  const form = event.target.form ?? event.target.closest("form");
  clearTimeout(local.timer);
  local.timer = setTimeout(() => look(form, app, local), LOOK_AFTER_MS);
}

// A fault of no field is one of the repository, unless this server is away: it is shown where the address is.
function faultsOfLook(problem) {
  const { "": ofNone, ...faults } = faultsOf(problem);
  return ofNone && problem.status ? { ...faults, url: ofNone } : faultsOf(problem);
}

// Asks what matches. The answer to a question that is not the last one any more is dropped.
async function look(form, app, local) {
  const body = bodyOf(form, local);
  local.isNamed = Boolean(textOf(new FormData(form), "url"));
  local.turn = (local.turn ?? 0) + 1;
  const mine = local.turn;
  if (!body) {
    Object.assign(local, { preview: null, isLooking: false, faults: {} });
    return redraw();
  }
  local.isLooking = true;
  redraw();
  try {
    const preview = await post(ofApp(app.app_id, "repositories/preview"), body);
    if (mine !== local.turn) return;
    Object.assign(local, { preview, isLooking: false, faults: {} });
  } catch (problem) {
    if (mine !== local.turn) return;
    if (problem.status === 429) {
      local.timer = setTimeout(() => look(form, app, local), (problem.retryAfter || 2) * 1000);
      return;
    }
    Object.assign(local, { preview: null, isLooking: false, faults: faultsOfLook(problem) });
  }
  redraw();
}

// What is missing before anything can be asked, by the names of its fields.
function missing(form, local) {
  const fields = new FormData(form);
  const faults = {};
  const need = (name, text) => {
    if (!textOf(fields, name)) faults[name] = text;
  };
  need("url", "Name the repository");
  if (local.access === "token") need("token", "Write the token");
  if (local.access === "github-app") {
    need("app_id", "Write the id of the App");
    if (!Number(textOf(fields, "installation_id"))) faults.installation_id = "Must be a number, the one at the end of the installation's address";
    need("private_key", "Write the private key");
  }
  return faults;
}

// Shows what is wrong, and leads to the first of it.
function refused(local, faults) {
  Object.assign(local, { isBusy: false, faults });
  redraw();
  document.querySelector("[aria-invalid='true']")?.focus();
}

// Sends the form. A watch that is there already is replaced only where somebody asked for that.
async function send(form, app, local, done, ifWatched) {
  clearTimeout(local.timer);
  local.turn = (local.turn ?? 0) + 1;
  const body = bodyOf(form, local);
  if (!body) return refused(local, missing(form, local));
  const name = ifWatched === "replace" ? local.taken.name : textOf(new FormData(form), "watch_name");
  Object.assign(local, { isBusy: true, isLooking: false, faults: {} });
  redraw();
  try {
    done(await post(ofApp(app.app_id, "repositories"), { ...body, sink: sinkOf(form, local), watch_name: name, if_watched: ifWatched }));
  } catch (problem) {
    const isTaken = problem.code === "already-watched";
    if (isTaken) local.taken = { name, id: /repo_\w+/.exec(problem.message)?.[0] };
    refused(local, isTaken ? { watch_name: "The app watches this already" } : faultsOf(problem));
  }
}

function submitted(event, app, local, done) {
  event.preventDefault();
  return send(event.target, app, local, done, "refuse");
}

async function replace(app, local, done) {
  const question = { title: "Replace the settings of the watch?", yes: "Replace them", isDanger: true,
    text: "All its settings become those of this form. The app gets deletes of what does not match any more, and everything else again." };
  const form = document.getElementById("repository-form");
  if (await ask(question) && form) await send(form, app, local, done, "replace");
}

// What to do about a watch that is there already.
const taken = (app, local, faults, done) => html`<div class="card verdict warn"><strong>The app watches this already</strong>
    <p><a href=${link("watch", { app: isStaff() ? app.app_id : undefined, id: local.taken.id })}>Look at that watch</a>. A name makes a second watch beside it.</p>
    ${mayDo("watches:update") ? html`<p><button class="button danger" type="button" ?disabled=${local.isBusy} @click=${() => replace(app, local, done)}>Change that watch instead</button></p>` : nothing}</div>
  ${field({ name: "watch_name", label: "Name of the new watch", faults, isMono: true, hint: "Small letters, digits and -: deploy" })}`;

const LISTED = 40;

function matches({ preview, isLooking, isNamed, faults = {} }) {
  const says = () => {
    if (isLooking) return "Looking …";
    if (faults.branch || faults.include || faults.exclude) return "The files are shown once the marked field is right.";
    if (!preview) return isNamed ? "The files are shown once the repository can be read." : "Name a repository to see which of its files match.";
    if (preview.matching_refs === 0) return "No ref of the repository matches the pattern. The first that does is delivered.";
    if (!preview.commit) return "The repository has no commit yet. Its first one is delivered.";
    return `${count(preview.matching)} of ${plural(preview.files, "file")} match, on ${preview.branch ?? "its branch"} at ${commit(preview.commit)}${preview.matching_refs > 1 ? `; the pattern matches ${plural(preview.matching_refs, "ref")}` : ""}`;
  };
  const more = preview ? preview.matching - Math.min(preview.paths.length, LISTED) : 0;
  return html`<div class="matches" aria-label="Files that match" role="group" aria-busy=${isLooking ? "true" : "false"}>
    <p class="${preview && !isLooking && preview.commit ? "" : "muted"}" role="status">${says()}</p>
    ${preview?.paths.length ? html`<ul class="paths" tabindex="0" aria-label="Matching paths">${preview.paths.slice(0, LISTED).map((path) => html`<li class="mono">${path}</li>`)}
      ${more > 0 ? html`<li class="muted">and ${count(more)} more</li>` : nothing}</ul>` : nothing}</div>`;
}

export function repositoryForm(app, local, done) {
  const faults = local.faults ?? {};
  const access = local.access ?? "public";
  const goes = local.goes ?? "app";
  const look_ = (event) => changed(event, app, local);
  const chosen = (name) => (value) => {
    local[name] = value;
    redraw();
    const form = document.getElementById("repository-form");
    if (form && name === "access") changed({ target: { form } }, app, local);
  };
  const credential = faults.github_token ?? faults.token;
  const ofInstallation = faults.installation_id ?? faults["github_app/installation_id"];
  const ofKey = faults.private_key ?? faults["github_app/private_key"];
  return html`<form class="card padded form wide-form" id="repository-form" @submit=${(event) => submitted(event, app, local, done)} novalidate>
    <div class="form-fields">
      ${field({ name: "url", label: "Address of the repository", faults: { url: faults.url ?? faults.github_url }, isMono: true, required: true, hint: "As for git clone, over https", changed: look_ })}
      ${choice({ name: "access", label: "Access", options: ACCESS, value: access, changed: chosen("access") })}
      ${access === "token" ? field({ name: "token", label: "Token", type: "password", faults: { token: credential }, isMono: true, required: true, hint: "Kept sealed, sent to this Git host only", changed: look_ }) : nothing}
      ${access === "github-app" ? html`${field({ name: "app_id", label: "App id or client id", faults: { app_id: faults.app_id ?? (ofKey || ofInstallation ? undefined : faults.github_app) }, isMono: true, required: true, changed: look_ })}
        ${field({ name: "installation_id", label: "Installation id", faults: { installation_id: ofInstallation }, isMono: true, required: true, changed: look_ })}
        ${field({ name: "private_key", label: "Private key (PEM)", faults: { private_key: ofKey }, isMono: true, isLong: true, rows: 4, changed: look_ })}` : nothing}
      ${field({ name: "branch", label: "Branch", faults, isMono: true, hint: "Empty: the default branch", changed: look_ })}
      ${field({ name: "include", label: "Include", faults, isMono: true, isLong: true, hint: "One glob a line, such as docs/** or **/*.md; empty: everything", changed: look_ })}
      ${field({ name: "exclude", label: "Exclude", faults, isMono: true, isLong: true, rows: 2, hint: "What is left out of that", changed: look_ })}
      ${choice({ name: "goes", label: "Its changes go", options: GOES.map(([word, text, hint]) => [word, text, hint ?? (app.base_url ?? "The app asks for them.")]), value: goes, changed: chosen("goes") })}
      ${goes === "endpoint" || goes === "stream" ? field({ name: "sink_url", label: goes === "stream" ? "Server and subject" : "Address", faults: { sink_url: faults.sink }, isMono: true, required: true,
        hint: goes === "stream" ? "A nats or tls address that ends with the prefix of subjects" : "An https address; /create, /update and /delete are appended to it" }) : nothing}
      ${goes === "tasks" ? field({ name: "sink_command", label: "Command of the queue", faults: { sink_command: faults.sink }, isMono: true, required: true,
        hint: "What workers name: letters, digits and _.:-, such as index. The queue is created with its first task." }) : nothing}
      ${fault(faults[""] ?? (faults.sink && goes === "pull" ? faults.sink : undefined))}
      ${local.taken ? taken(app, local, faults, done) : nothing}
      <div class="buttons"><button class="button first" type="submit" ?disabled=${local.isBusy}>Watch this repository</button></div>
    </div>${matches(local)}</form>`;
}
