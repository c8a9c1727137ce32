// The server itself: breakers, sources, hooks, replicas, storage, settings, keys, and tokens of the staff.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post, remove } from "../core/api.js";
import { mayDo } from "../core/session.js";
import { link, state } from "../core/router.js";
import { bytes, count, plural, span, words } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, section, table, tabs } from "../parts/table.js";
import { button } from "../parts/dialog.js";
import { empty } from "../parts/states.js";
import { SHARDS, badge, code, moment } from "../parts/words.js";
import { tokensSection } from "./tokens.js";

const paged = (path, more) => (query, signal) => get(path, { limit: 50, cursor: query.cursor, ...more?.(query) }, signal);

// The breaker of a sink has the id of the sink, which is no address of a page.
const appOfBreaker = ({ id, app_name: name, subscription }) => html`of ${id.startsWith("app_") ? html`<a href=${link("app", { app: id })}>${name}</a>` : name}${subscription ? `, subscription ${subscription}` : ""}`;

const breakers = (page) => html`${table({
  caption: "Breakers that have failures", rows: page.items, none: empty("Every breaker is closed", "No endpoint and no Git source has failures."),
  columns: [
    { label: "Breaker", kind: "wide", cell: (row) => html`${words(row.kind)} ${row.app_name ? appOfBreaker(row) : row.repository ? html`<span class="mono">${row.repository}</span>` : nothing}<span class="sub mono">${row.id}</span>` },
    { label: "State", kind: "tight", cell: (row) => badge(row.state === "open" ? "bad" : "warn", row.state) },
    { label: "Failures", kind: "num", cell: (row) => count(row.failures) },
    { label: "Last fault", kind: "wide", cell: (row) => row.last_error || "–" },
    { label: "Next probe", kind: "tight", cell: (row) => moment(row.probe_at) },
    ...(mayDo("breakers:set") ? [{ label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => button("Close the breaker", {
      work: () => post(`admin/breakers/${part(row.kind)}/${part(row.id)}/reset`, {}), done: "The next try goes at once.", of: `of ${row.app_name ?? row.repository ?? row.id}`,
      question: { title: "Close the breaker?", text: "The next try goes at once. The breaker opens again after as many failures as before.", yes: "Close it" } }) }] : []),
  ],
})}${pager(page)}`;

const sources = (page) => html`${filterBar({ label: "Sources", choices: [{ name: "failing", label: "State", options: [["", "failing"], ["false", "all"]] }] })}${table({
  caption: "Repositories as seen with one credential", rows: page.items, none: empty("No source fails", "Every repository could be read at its last scan."),
  columns: [
    { label: "Repository", kind: "wide", cell: (row) => html`<span class="mono">${row.url}</span>${row.moved_to ? html`<span class="sub">moved to ${row.moved_to}</span>` : nothing}` },
    { label: "Credential of", cell: (row) => (row.app_id ? html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>` : "none") },
    { label: "Last fault", kind: "wide", cell: (row) => row.last_error ?? badge("good", "none") },
    { label: "Last scan", kind: "tight", cell: (row) => moment(row.last_scan_at) },
    { label: "Next scan", kind: "tight", cell: (row) => moment(row.next_poll_at) },
    { label: "Watches", kind: "num", cell: (row) => count(row.watches) },
  ],
})}${pager(page)}`;

// What did not prove itself, or repeats another one, is not judged again.
const isJudgedAgain = ({ verdict, body_state: body }) => ["accepted", "ignored"].includes(verdict) || (verdict === "refused" && body === "kept");

const judged = ({ verdict, reason }) => (verdict === "accepted" ? "The hook is accepted: the Git host is asked soon."
  : `The hook is ${words(verdict)}: ${words(reason)}.`);

const VERDICTS = [["", "all"], ["accepted", "accepted"], ["duplicate", "duplicate"], ["ignored", "ignored"], ["refused", "refused"]];

const hooks = (page) => html`${filterBar({ label: "Receipts", choices: [{ name: "verdict", label: "Verdict", options: VERDICTS }] })}${table({
  caption: "Receipts of hooks, the newest first", rows: page.items, none: state.query.verdict ? empty("No hook with this verdict", null) : empty("No hook arrived", html`With ${code("hooks.secret")} set, a Git host that sends its pushes here has them delivered within seconds.`),
  columns: [
    { label: "Received", kind: "tight", cell: (row) => moment(row.received_at) },
    { label: "From", cell: (row) => html`${row.provider}<span class="sub">${row.event}</span>` },
    { label: "Verdict", kind: "tight", cell: (row) => badge(row.verdict === "accepted" ? "good" : "warn", words(row.verdict)) },
    { label: "Reason", kind: "wide", cell: (row) => words(row.reason) || "–" },
    { label: "Repository", kind: "wide", cell: (row) => html`<span class="mono">${row.addresses.join(", ") || "–"}</span>` },
    { label: "Watched", kind: "num", cell: (row) => count(row.repositories) },
    ...(mayDo("receipts:replay") ? [{ label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => (isJudgedAgain(row) ? button("Judge again", {
      work: () => post(`admin/receipts/${part(row.receipt_id)}/replay`, {}), done: judged, of: row.receipt_id }) : "") }] : []),
  ],
})}${pager(page)}`;

const replicas = (page) => table({
  caption: "Servers that share the database", rows: page.items,
  columns: [
    { label: "Server", kind: "wide", cell: (row) => html`${row.name}${row.is_this ? html` <span class="muted">(this one)</span>` : nothing}<span class="sub mono">${row.address ?? "not reached by others"}</span>` },
    { label: "Version", cell: (row) => row.version },
    { label: "Role", cell: (row) => row.role },
    { label: "State", kind: "tight", cell: (row) => (row.seen_ms > 15_000 ? badge("bad", `silent for ${span(row.seen_ms)}`) : badge("good", "alive")) },
    { label: "Shards", kind: "num", title: SHARDS, cell: (row) => count(row.shards) },
    { label: "Lag", kind: "num", cell: (row) => span(row.lag_ms) },
    { label: "Started", kind: "tight", cell: (row) => moment(row.started_at) },
  ],
});

function storage({ use, mirrors }) {
  const rows = Object.entries(use.database.rows).sort(([, one], [, other]) => other - one);
  return html`<div class="figures">
      <div class="figure"><span class="value">${bytes(use.database.bytes)}</span><span class="label">database</span></div>
      <div class="figure"><span class="value">${bytes(use.database.free_bytes)}</span><span class="label">free within the database</span></div>
      <div class="figure"><span class="value">${bytes(use.mirrors.mirror_bytes)}</span><span class="label">in ${plural(use.mirrors.mirrors, "mirror")}</span></div>
      <div class="figure"><span class="value">${bytes(use.mirrors.free_bytes)}</span><span class="label">free on the disk of mirrors</span></div></div>
    ${section("Largest mirrors", html`${table({ caption: "The largest mirrors", rows: mirrors.items, none: empty("No mirror yet", null), columns: [
      { label: "Repository", kind: "wide", cell: (row) => html`<span class="mono">${row.url ?? row.repository}</span>` },
      { label: "Size", kind: "num", cell: (row) => bytes(row.bytes) },
      { label: "Packs", kind: "num", cell: (row) => count(row.packs) }] })}${pager(mirrors)}`)}
    ${section("Rows of each table", html`<div class="card padded"><dl class="counts">${rows.map(([name, number]) => (
      html`<div><dt>${code(name)}</dt><dd>${count(number)}</dd></div>`))}</dl></div>`)}`;
}

// Every setting by its whole name, one a row.
function flat(value, name = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[name, value]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key));
}

// A value as the file has it. A large number of bytes stands in a larger unit as well.
function valueOf(name, value) {
  if (value === null || value === "") return html`<span class="muted">not set</span>`;
  const isLarge = /bytes/.test(name) && value >= 1024;
  return html`${code(typeof value === "string" ? value : JSON.stringify(value))}${isLarge ? html` <span class="muted small">${bytes(value)}</span>` : nothing}`;
}

const settings = (all, query) => {
  const rows = flat(all).filter(([name, value]) => !query.q || `${name} ${JSON.stringify(value)}`.toLowerCase().includes(query.q.toLowerCase()));
  return html`${filterBar({ placeholder: "git.poll" })}${table({
    caption: "Settings in force", rows, none: empty("No setting matches", null),
    columns: [{ label: "Setting", kind: "wide", cell: ([name]) => code(name) },
      { label: "Value", kind: "wide", cell: ([name, value]) => valueOf(name, value) }],
  })}`;
};

// A request seals at most 500 values: it is sent until no older key seals a value that can be opened.
async function sealAgain() {
  let resealed = 0;
  for (;;) {
    const step = await post("admin/keys/reencrypt", {});
    resealed += step.resealed;
    if (!step.resealed || step.left <= step.unreadable) return { resealed, unreadable: step.unreadable };
  }
}

const keys = (page) => section("Sealing keys", table({
  caption: "Keys, oldest first", rows: page.items,
  columns: [
    { label: "Key", kind: "wide", cell: (row) => code(row.id) },
    { label: "Seals", kind: "tight", cell: (row) => (row.is_primary ? badge("good", "from now on") : badge("", "older values")) },
    { label: "Sealed values", kind: "num", cell: (row) => count(row.sealed) },
    { label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => (row.is_primary || row.sealed || !mayDo("keys:rotate") ? "" : button("Take out", { tone: "danger", of: row.id,
      work: () => remove(`admin/keys/${part(row.id)}`), done: "The key is gone.", question: { title: "Take this key out?", text: "Nothing is sealed with it any more. Backups that need it cannot be read without it.", yes: "Take it out", isDanger: true } })) },
  ],
}), mayDo("keys:rotate") && html`${button("Rotate", { work: () => post("admin/keys/rotate", {}), done: "A new key seals from now on.",
  question: { title: "Create a new key?", text: "It seals from now on. Older keys still open what they sealed.", yes: "Rotate" } })}
  ${page.items.some((row) => !row.is_primary && row.sealed) ? button("Seal again", { work: sealAgain, done: ({ resealed, unreadable }) => `${plural(resealed, "value is", "values are")} sealed by the newest key${unreadable ? `; ${count(unreadable)} cannot be opened` : ""}.`,
    question: { title: "Seal older values again?", text: "The newest key seals what older keys sealed. An older key can be taken out once it seals nothing.", yes: "Seal them" } }) : nothing}`);

const TABS = {
  "": { name: "Breakers", says: "Endpoints and Git sources that fail, and when each is tried again.", needs: "breakers:read", load: paged("admin/breakers"), view: breakers },
  sources: { name: "Sources", says: "Repositories, each as one credential sees it.", needs: "sources:read", load: paged("admin/sources", (query) => ({ failing: query.failing || "true" })), view: sources },
  hooks: { name: "Hooks", says: "Requests in which Git hosts tell of pushes, the newest first.", needs: "receipts:read", load: paged("admin/receipts", ({ verdict }) => ({ verdict })), view: hooks },
  replicas: { name: "Replicas", says: "Servers that share the database.", needs: "system:read", load: paged("admin/replicas"), view: replicas },
  storage: { name: "Storage", says: "What the database and the mirrors of repositories take.", needs: "system:read", view: storage, slow: true, load: async (query, signal) => {
    const [use, mirrors] = await Promise.all([get("admin/storage", {}, signal), get("admin/mirrors", { limit: 10, cursor: query.cursor }, signal)]);
    return { use, mirrors };
  } },
  settings: { name: "Settings", says: "Settings in force; a secret is never shown.", needs: "settings:read", load: (query, signal) => get("admin/settings", {}, signal), view: settings, slow: true },
  keys: { name: "Keys", says: "Keys with which tokens and secrets are sealed in the database.", needs: "keys:list", load: paged("admin/keys"), view: keys },
  tokens: { name: "Tokens", says: "Tokens of the staff.", needs: "staff-tokens:list", load: paged("admin/tokens"), view: (page) => tokensSection(page, "admin/tokens", "staff-tokens", true) },
};

// The part that the address names; else the first that the caller may see.
const tabOf = ({ tab }) => TABS[tab === "breakers" ? "" : tab] ?? (mayDo(TABS[""].needs) ? TABS[""] : Object.values(TABS).find(({ needs }) => mayDo(needs)) ?? TABS[""]);

const load = async (query, signal, { data: shown }) => {
  const tab = tabOf(query);
  // What counts rows is asked once, not every few seconds.
  if (tab.slow && shown?.tab === tab && shown.cursor === query.cursor) return shown;
  return { tab, cursor: query.cursor, page: await tab.load(query, signal) };
};

function view({ data, query }) {
  const tab = tabOf(query);
  const list = Object.entries(TABS).filter(([, { needs }]) => mayDo(needs)).map(([name, { name: text }]) => [name || "breakers", text]);
  const current = Object.keys(TABS).find((name) => TABS[name] === tab) || "breakers";
  return html`${heading("System", { text: tab.says })}${tabs("Parts of the server", list, current)}
    <div class="sections">${data.tab === tab ? tab.view(data.page, query) : nothing}</div>`;
}

export default { title: "System", load, view, refreshMs: 10_000 };
