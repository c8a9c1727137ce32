// Tokens of an app or of the staff: made, shown once, revoked.
import { html } from "../vendor/lit-html.js";
import { part, post, remove } from "../core/api.js";
import { mayDo } from "../core/session.js";
import { button, ask } from "../parts/dialog.js";
import { pager, section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge, code, moment } from "../parts/words.js";

const ROLES = ["viewer", "operator", "admin"];

const list = (text) => (text ?? "").split(/[\s,]+/).filter(Boolean);

// Permissions stand in place of a role.
function bodyOf({ name, role, permissions, commands }) {
  const [may, only] = [list(permissions), list(commands)];
  return { name, ...(may.length ? { permissions: may } : role ? { role } : {}), ...(only.length ? { commands: only } : {}) };
}

const form = (hasRole) => html`<div class="field"><label for="token-name">What it is for</label>
  <input id="token-name" name="name" required maxlength="100" autocomplete="off"></div>
  ${hasRole ? html`<div class="field"><label for="token-role">Role</label><select id="token-role" name="role">
    ${ROLES.map((role) => html`<option value=${role}>${role}</option>`)}</select></div>` : ""}
  <div class="field"><label for="token-permissions">Permissions</label>
    <input id="token-permissions" name="permissions" class="mono" autocomplete="off" spellcheck="false" aria-describedby="token-permissions-hint">
    <p class="small muted" id="token-permissions-hint">Such as *:read dead-letters:redrive; empty: ${hasRole ? "as the role says" : "all that the app may"}</p></div>
  <div class="field"><label for="token-commands">Commands of tasks</label>
    <input id="token-commands" name="commands" class="mono" autocomplete="off" spellcheck="false" aria-describedby="token-commands-hint">
    <p class="small muted" id="token-commands-hint">Such as mail.*; empty: every command</p></div>`;

// The one moment at which a token can be read.
const reveal = (made) => ask({
  title: "The new token",
  text: "Copy it now. It is never shown again.",
  fields: html`<div class="field"><label for="new-token">Token</label><input id="new-token" class="mono" readonly .value=${made.token} @focus=${(event) => event.target.select()}></div>`,
  yes: "I have copied it",
});

// What a narrowed token may do.
const powers = (row) => (row.permissions || row.commands
  ? html`${row.permissions ? code(row.permissions.join(" ")) : ""}${row.commands ? html`<span class="sub">commands ${code(row.commands.join(" ") || "none")}</span>` : ""}`
  : row.role ? "what its role may" : "all that its app may");

async function create(path, fields) {
  const made = await post(path, bodyOf(fields));
  await reveal(made);
  return made;
}

// `resource`: that of the permissions to create and revoke these tokens.
export function tokensSection(page, path, resource, hasRole = false) {
  const [mayMake, mayRevoke] = [mayDo(`${resource}:create`), mayDo(`${resource}:revoke`)];
  const question = { title: "Create a token", fields: form(hasRole), yes: "Create it" };
  const revoke = (row) => button("Revoke", {
    tone: "danger", of: row.name, work: () => remove(`${path}/${part(row.token_id)}`), done: `The token ${row.name} is revoked.`,
    question: { title: `Revoke ${row.name}?`, text: "Requests with this token are refused at once, and its sessions end. This cannot be taken back.", yes: "Revoke", isDanger: true },
  });
  const tone = { live: "good", expired: "", revoked: "" };
  return section("Tokens", html`${table({
    caption: "Tokens, oldest first", rows: page.items, none: empty("No token", null),
    columns: [
      { label: "For", kind: "wide", cell: (row) => html`${row.name}<span class="sub">${code(row.token_id)}</span>` },
      ...(hasRole ? [{ label: "Role", cell: (row) => row.role ?? "own permissions" }] : []),
      ...(page.items.some((row) => row.permissions || row.commands) ? [{ label: "May", kind: "wide", cell: powers }] : []),
      { label: "State", kind: "tight", cell: (row) => badge(tone[row.state] ?? "", row.state) },
      { label: "Used last", kind: "tight", cell: (row) => moment(row.last_used_at) },
      { label: "Ends", kind: "tight", cell: (row) => (row.expires_at ? moment(row.expires_at) : "never") },
      ...(mayRevoke ? [{ label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => (row.state === "live" ? revoke(row) : "") }] : []),
    ],
  })}${pager(page)}`, mayMake ? button("Create a token", { work: (fields) => create(path, fields), done: "The token is created.", question }) : "");
}
