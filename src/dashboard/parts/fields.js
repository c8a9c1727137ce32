// Columns and lists that several pages share.
import { html, nothing } from "../vendor/lit-html.js";
import { appOf, isStaff } from "../core/session.js";
import { addressOf, go, link, state } from "../core/router.js";
import { count, plainTimes, plural, ref, span, visible, words } from "../core/format.js";
import { answerOf, badge, changeBadge, changeWords, code, letterBadge, moment, reasonOf, stateBadge, statusOf } from "./words.js";

export const selectorWords = ({ kind, value }) => (kind === "default_branch" ? "default branch" : value);

// Where the changes of a watch go.
export const goesTo = ({ sink }, staff, ofApp) => (!sink ? ofApp : sink.command
  ? html`the queue <a href=${link("queue", { app: staff, command: sink.command })}>${sink.command}</a>`
  : html`${sink.kind} <span class="mono">${sink.url ?? ""}</span>`);

const lagOf = (row) => Math.max(0, ...row.branches.map((branch) => branch.lag_ms));

export const watchColumns = ({ hasApp, hrefOf }) => [
  { label: "Watch", kind: "wide", cell: (row) => html`<a href=${hrefOf(row)}>${row.repository}</a>
    <span class="sub">${selectorWords(row.selector)}${row.watch_name ? ` · ${row.watch_name}` : ""}</span>
    ${row.sink ? html`<span class="sub">to ${goesTo(row, isStaff() ? row.app_id ?? appOf(state.query) : undefined)}</span>` : nothing}` },
  ...(hasApp ? [{ label: "App", kind: "named", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>` }] : []),
  { label: "State", kind: "wide", cell: (row) => html`${stateBadge(row.effective_state)}${row.effective_reason
    ? html`<span class="sub">${plainTimes(row.effective_reason)}</span>` : nothing}` },
  { label: "Branches", kind: "num", cell: (row) => count(row.branches.length) },
  { label: "Behind for", kind: "num", cell: (row) => (lagOf(row) ? span(lagOf(row)) : "–") },
  { label: "Dead letters", kind: "num", cell: (row) => (row.dead_letters ? count(row.dead_letters) : "–") },
];

export const letterColumns = ({ hrefOf, hasApp, local, redraw, mayAct }) => [
  ...(mayAct ? [{
    label: "Select", kind: "check",
    cell: (row) => html`<input type="checkbox" aria-label="Select ${row.path}" .checked=${local.chosen?.has(row.dead_letter_id) ?? false}
      ?disabled=${row.status !== "open"} @change=${(event) => choose(local, row, event.target.checked, redraw)}>`,
  }] : []),
  { label: "Path", kind: "wide", cell: (row) => html`<a href=${hrefOf(row)}>${visible(row.path) || code(row.delivery_id)}</a><span class="sub">${changeWords(row.operation)}</span>` },
  ...(hasApp ? [{ label: "App", kind: "wide", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>
    <span class="sub">${row.repository ?? "not watched any more"}</span>` }] : []),
  { label: "Why", kind: "wide", cell: (row) => html`${reasonOf(row.reason, Boolean(row.command))}<span class="sub">${answerOf(row)}</span>` },
  { label: "State", kind: "tight", cell: (row) => letterBadge(row.status) },
  { label: "Since", kind: "tight", cell: (row) => moment(row.created_at) },
];

function choose(local, row, isChosen, redraw) {
  local.chosen ??= new Map();
  if (isChosen) local.chosen.set(row.dead_letter_id, row.app_id);
  else local.chosen.delete(row.dead_letter_id);
  redraw();
}

export const deliveryColumns = ({ hasApp, hrefOf, watchOf }) => [
  { label: "Path", kind: "wide", cell: (row) => html`<a href=${hrefOf(row)}>${visible(row.path)}</a><span class="sub">${changeWords(row.type)}</span>` },
  ...(hasApp ? [{ label: "App", kind: "wide", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>
    <span class="sub">${row.repository ?? "not watched any more"}</span>` }] : []),
  { label: "State", kind: "tight", cell: (row) => changeBadge(row.state) },
  { label: "Branch", cell: (row) => html`<a href=${watchOf(row)}>${ref(row.branch)}</a>` },
  { label: "Tries", kind: "num", cell: (row) => count(row.attempts) },
  { label: "Answer", kind: "tight", cell: statusOf },
  { label: "When", kind: "tight", cell: (row) => (row.settled_at ? moment(row.settled_at) : row.next_attempt_at
    ? html`next ${moment(row.next_attempt_at)}` : "–") },
];

const BAD = ["source.failing", "watch.blocked", "letter.parked", "sink.disabled", "sink.opened", "subscription.blocked",
  "subscription.skipped", "subscription.gap", "mail.failed", "status.ended", "task.dead"];
const GOOD = ["source.recovered", "watch.recovered", "watch.resumed", "sink.enabled", "sink.closed", "round.ended", "subscription.recovered", "mail.sent"];

const toneOfEntry = (type) => (BAD.includes(type) ? "bad" : GOOD.includes(type) ? "good" : "");

// What an entry says, in a line.
function entryWords({ data }) {
  const { reason, path, count: number, commit, total, repository, branch, number: entry, http_status: status, url, subscription, command, host, to,
    attempts, error } = data ?? {};
  return [repository ?? url ?? subscription ?? command ?? host, branch && ref(branch), to && [to].flat().join(", "), number && plural(number, command ? "task" : "change"), path, total !== undefined && plural(total, "change"),
    entry && `entry ${entry}`, status && `answer ${status}`, commit && commit.slice(0, 10), attempts && plural(attempts, "attempt"), error, reason].filter(Boolean).map(visible).join(" · ");
}

// A commit is named by branch and round, which the details say already.
const originWords = ({ kind, name }) => (kind === "commit" ? html`<span title=${name}>commit</span>` : kind === "person" ? code(name) : words(name || kind));

// What an entry is about: a watch, or a task.
function aboutOf(row, hrefOf) {
  const said = entryWords(row) || row.subject;
  if (row.repository_id) return html`<a href=${hrefOf(row)}>${said}</a>`;
  if (!row.subject?.startsWith("tsk_")) return said;
  return html`<a href=${link("task", { app: isStaff() ? row.app_id ?? appOf(state.query) : undefined, id: row.subject })}>${said}</a>`;
}

export const entryColumns = ({ hasApp, hrefOf }) => [
  { label: "When", kind: "tight", cell: (row) => moment(row.at) },
  { label: "What", kind: "tight", cell: (row) => badge(toneOfEntry(row.type), row.type) },
  ...(hasApp ? [{ label: "App", kind: "named", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name ?? row.app_id}</a>` }] : []),
  { label: "Details", kind: "wide", cell: (row) => aboutOf(row, hrefOf) },
  { label: "Cause", kind: "tight", cell: (row) => originWords(row.origin) },
];

// One box for a path over all deliveries, of an app or of all.
export const deliverySearch = (app) => html`<form class="bar" role="search" aria-label="Find a path" @submit=${(event) => {
  event.preventDefault();
  event.stopPropagation();
  go(addressOf("deliveries", { app, path: new FormData(event.target).get("path") }));
}}>
  <div class="field grow"><label for="find-path">Path, or a glob such as docs/**</label>
    <input id="find-path" name="path" class="mono" type="search" autocomplete="off" spellcheck="false" required></div>
  <button class="button" type="submit">Find</button></form>`;
