// Hooks of an app: addresses at which Git hosts tell of pushes. Created, given another secret, removed.
import { html, nothing } from "../vendor/lit-html.js";
import { part, post, remove } from "../core/api.js";
import { mayDo } from "../core/session.js";
import { words } from "../core/format.js";
import { ask, button } from "./dialog.js";
import { pager, section, table } from "./table.js";
import { empty } from "./states.js";
import { badge, code, moment } from "./words.js";

const HOSTS = [["github", "GitHub"], ["gitlab", "GitLab"], ["gitea", "Gitea or Forgejo"]];

const form = html`<div class="field"><label for="hook-name">Name</label>
    <input id="hook-name" name="name" class="mono" required maxlength="64" autocomplete="off" spellcheck="false"></div>
  <div class="field"><label for="hook-provider">Git host</label><select id="hook-provider" name="provider">
    ${HOSTS.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></div>`;

const shown = (id, label, value) => html`<div class="field"><label for=${id}>${label}</label>
  <input id=${id} class="mono" readonly .value=${value} @focus=${(event) => event.target.select()}></div>`;

// The one moment at which the secret can be read.
const reveal = ({ path, secret }) => ask({
  title: "The hook", yes: "I have copied both", no: "Close",
  text: "Give both to the Git host. The secret is never shown again.",
  fields: html`${shown("hook-address", "Address", new URL(path, location.origin).href)}${shown("hook-secret", "Secret", secret)}`,
});

async function revealed(path, body) {
  const made = await post(path, body);
  await reveal(made);
  return made;
}

function acts(path, row) {
  const own = `${path}/${part(row.hook_id)}`;
  return html`<div class="bar">${mayDo("hooks:rotate-secret") ? button("New secret", { of: `of ${row.name}`, work: () => revealed(`${own}/rotate-secret`, {}), done: `${row.name} has a new secret.`,
    question: { title: `Give ${row.name} a new secret?`, text: "The Git host has to sign with the new secret. The former one is accepted for some time.", yes: "Create it" } }) : nothing}
    ${mayDo("hooks:remove") ? button("Remove", { tone: "danger", of: row.name, work: () => remove(own), done: `The hook ${row.name} is removed.`,
      question: { title: `Remove ${row.name}?`, text: "Requests to its address are refused from now on. This cannot be taken back.", yes: "Remove", isDanger: true } }) : nothing}</div>`;
}

const verdict = ({ last_receipt: last }) => (last ? html`${badge(last.verdict === "accepted" ? "good" : "warn", words(last.verdict))}
  <span class="sub">${moment(last.received_at)}</span>` : "none yet");

export function hooksSection(page, path) {
  const make = button("Create a hook", { work: (fields) => revealed(path, fields), done: ({ name }) => `The hook ${name} is created.`,
    question: { title: "Create a hook", text: "With a hook, a push is delivered within seconds.", fields: form, yes: "Create it" } });
  return section("Hooks", html`${table({
    caption: "Hooks of this app, oldest first", rows: page.items,
    none: empty("No hook", "A Git host that sends its pushes to a hook has them delivered within seconds."),
    columns: [
      { label: "Hook", kind: "wide", cell: (row) => html`${row.name}<span class="sub">${code(row.path)}</span>` },
      { label: "Git host", kind: "tight", cell: (row) => row.provider },
      { label: "Repository", kind: "wide", cell: (row) => (row.repository_url ? html`<span class="mono">${row.repository_url}</span>` : "all of the app") },
      { label: "Last request", kind: "tight", cell: verdict },
      { label: "Created", kind: "tight", cell: (row) => moment(row.created_at) },
      ...(mayDo("hooks:rotate-secret") || mayDo("hooks:remove") ? [{ label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => acts(path, row) }] : []),
    ],
  })}${pager(page)}`, mayDo("hooks:create") ? make : "");
}
