// One watch: how it really stands and what to do about it, its branches, its rounds with their changes, its
// scans, and how it was set up.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { here, link } from "../core/router.js";
import { bytes, capital, commit, count, plainTimes, plural, ref, span, visible, words } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { pager, section, table, tabs } from "../parts/table.js";
import { empty, loading } from "../parts/states.js";
import { adviceOf, badge, changeBadge, changeWords, code, fillsQueue, moment, pairs, stateBadge, toneOf } from "../parts/words.js";
import { tasksOfBranch, tasksOfWatch } from "../tasks/watch-tasks.js";
import { entryColumns, goesTo, selectorWords } from "../parts/fields.js";
import { button } from "../parts/dialog.js";
import { watchButtons } from "../parts/acts.js";

const TABS = [["", "Branches"], ["rounds", "Rounds"], ["changes", "Changes"], ["events", "What happened"], ["settings", "Settings"]];

// A tab that there is not is the first one.
const tabOf = ({ tab }) => (TABS.some(([name]) => name === tab) ? tab : "");

async function load(query, signal) {
  const app = appOf(query);
  const path = ofApp(app, `repositories/${part(query.id ?? "")}`);
  const watch = get(path, {}, signal);
  const owner = appSeen(app, signal);
  const rest = { cursor: query.cursor, limit: 50 };
  if (query.tab === "rounds") return { watch: await watch, app: await owner, rounds: await get(`${path}/rounds`, { ...rest, branch: query.branch }, signal) };
  if (query.tab === "changes") return { watch: await watch, app: await owner, changes: await changesOf(path, query, rest, signal) };
  if (query.tab === "events") return { watch: await watch, app: await owner, entries: await get(ofApp(app, "ledger"), { ...rest, repository_id: query.id }, signal) };
  const [shown, own] = await Promise.all([watch, owner]);
  return { watch: shown, app: own, ...(tabOf(query) ? {} : await besides(app, shown, signal)) };
}

// What the heads of branches wait for, and what tells of pushes to the repository.
async function besides(app, watch, signal) {
  const isWaiting = watch.branches.some(({ round }) => round) && !fillsQueue(watch) && mayDo("deliveries:read");
  const failed = { repository_id: watch.repository_id, status: "failed", limit: 50 };
  const [{ items }, hooks] = await Promise.all([isWaiting ? get(ofApp(app, "deliveries"), failed, signal) : { items: [] },
    mayDo("hooks:read") ? get(ofApp(app, "hooks"), { limit: 100 }, signal) : null]);
  return { failed: items, hooks: hooks?.items.filter(({ repository_url: only }) => !only || only === watch.github_url) };
}

// The changes of a round: of the one that is asked for, of the one under way, or of the newest. A round whose
// trees are gone says so.
async function changesOf(path, query, rest, signal) {
  const asked = { ...rest, branch: query.branch, round: query.round, path_glob: query.path };
  try {
    const page = await get(`${path}/changes`, asked, signal);
    if (page.round || query.round) return page;
    const { items: [newest] } = await get(`${path}/rounds`, { branch: query.branch, limit: 1 }, signal);
    return newest ? await get(`${path}/changes`, { ...asked, branch: newest.branch, round: newest.round }, signal)
      : { ...page, why: "There was no round yet." };
  } catch (problem) {
    if (![404, 409, 422].includes(problem.status)) throw problem;
    return { items: [], why: problem.message };
  }
}

function standing(watch) {
  const advice = adviceOf(watch.effective_state, fillsQueue(watch));
  // The overview has the same tone for dead letters.
  const tone = watch.effective_state === "active" && watch.dead_letters ? "warn" : toneOf(watch.effective_state);
  return html`<div class="card verdict ${tone}"><div>${stateBadge(watch.effective_state)}</div>
    <p>${watch.effective_reason ? sentence(plainTimes(watch.effective_reason)) : watch.dead_letters
      ? `The app has everything but ${plural(watch.dead_letters, "change")}, which ${watch.dead_letters === 1 ? "is a dead letter" : "are dead letters"}.` : "The app has everything."}</p>
    ${advice ? html`<p class="muted">${advice}</p>` : nothing}</div>`;
}

const sentence = (text) => capital(text) + (/[.!?]$/.test(text) ? "" : ".");

// A number stays beside its unit.
const solid = (text) => text.replaceAll(" ", "\u00a0");

// The pace of a round so far, and how long the rest of it takes at that. A round has the moment of its beginning
// as its number.
function pace(round) {
  const elapsed = Date.now() - round.round;
  const left = round.total - round.position;
  const isKnown = round.position > 0 && elapsed > 0 && elapsed < 7 * 86_400_000;
  if (!isKnown) return "";
  const rate = (round.position * 1000) / elapsed;
  const words = rate >= 1 ? `${count(rate)} each second` : `one each ${solid(span(1000 / rate))}`;
  return `${words}, about ${solid(span((elapsed / round.position) * left))} left`;
}

function position({ round, effective_state: state }) {
  if (!round) return "–";
  const share = round.total ? Math.round((100 * round.position) / round.total) : 0;
  // What stands still has no pace.
  const speed = state === "delivering" ? pace(round) : "";
  return html`<div class="meter" role="progressbar" aria-label="Progress of the round" aria-valuenow=${share} aria-valuemin="0" aria-valuemax="100">
    <svg preserveAspectRatio="none" viewBox="0 0 100 1" aria-hidden="true"><rect width=${share} height="1"></rect></svg></div>
    <span class="sub">${count(round.position)} of ${count(round.total)} ${speed && `· ${speed}`}</span>`;
}

// The change that a branch waits for: tried, and not taken.
function waitsFor({ cursor, round }, failed, staff) {
  const head = round && failed.find((row) => row.cursor === cursor && row.round === round.round && row.position === round.position);
  if (!head) return nothing;
  return html`<span class="sub">waits for <a href=${link("delivery", { app: staff, id: head.id })}>${visible(head.path)}</a>, ${plural(head.attempts, "try", "tries")}${head.last_status
    ? `, last answer ${head.last_status}` : ""}</span>`;
}

const branches = (watch, failed, staff) => table({
  caption: "Branches", rows: watch.branches,
  none: empty("No branch is followed", "None of the repository's refs is what this watch follows."),
  columns: [
    { label: "Branch", kind: "wide named", cell: (row) => html`<a href=${here({ tab: "changes", branch: row.branch, round: undefined })}>${ref(row.branch)}</a>
      ${row.fault ? html`<span class="sub">its head cannot be taken: ${row.fault.reason}</span>` : nothing}` },
    { label: "State", kind: "wide", cell: (row) => html`${stateBadge(row.effective_state)}
      ${row.reason ? html`<span class="sub">${plainTimes(row.reason)}</span>` : nothing}${waitsFor(row, failed, staff)}${row.next_attempt_at
      ? html`<span class="sub">next try ${moment(row.next_attempt_at)}</span>` : nothing}` },
    { label: "App has", kind: "tight", title: "The commit that the app holds: every change up to here is settled", cell: (row) => html`<code title=${row.held_commit ?? ""}>${commit(row.held_commit)}</code>` },
    { label: "Newest commit", kind: "tight", title: "The commit of the branch at its Git host, as of the last scan", cell: (row) => html`<code title=${row.head_commit ?? ""}>${commit(row.head_commit)}</code>` },
    { label: "Behind for", kind: "num", cell: (row) => (row.lag_ms ? span(row.lag_ms) : "–") },
    { label: "Round", kind: "wide", cell: (row) => html`${position(row)}${fillsQueue(watch) ? tasksOfBranch(row, watch) : nothing}` },
    { label: "Dead letters", kind: "num", cell: (row) => (row.dead_letters ? count(row.dead_letters) : "–") },
  ],
});

// Sends again what one of these rounds brought, and what came after it.
function replayButton({ cursor, branch, round, held_commit: from, state }, path) {
  if (!from || state === "open" || !mayDo("watches:replay")) return "";
  return button("Replay", { of: `of round ${round}`, work: () => post(`${path}/replay`, { commit: from, cursor }), done: "A replay was asked for.",
    question: { title: `Replay ${ref(branch)} from ${commit(from)}?`, yes: "Replay",
      text: "The app gets the changes between that commit and the commit that it has now once more, before newer changes. A replay that was asked for before and has not begun is dropped. A paused watch begins the replay once it is resumed." } });
}

const roundTone = { finished: "good" };

const rounds = (page, path) => html`${table({
  caption: "Rounds, the newest first", rows: page.items,
  none: empty("No round yet", "A round begins when a branch has something that the app lacks."),
  columns: [
    { label: "Began", kind: "tight", cell: (row) => moment(row.began_at) },
    { label: "Branch", cell: (row) => html`<a href=${here({ tab: "changes", branch: row.branch, round: row.round, cursor: undefined })}>${ref(row.branch)}</a>` },
    { label: "Kind", cell: (row) => html`${words(row.kind)}${row.complete ? html`<span class="sub">complete</span>` : nothing}${row.history_rewritten ? html`<span class="sub">history rewritten</span>` : nothing}` },
    { label: "State", kind: "tight", cell: (row) => badge(roundTone[row.state] ?? "", words(row.state)) },
    { label: "From", kind: "tight", cell: (row) => code(commit(row.held_commit)) },
    { label: "To", kind: "tight", cell: (row) => code(commit(row.target_commit)) },
    { label: "Settled", kind: "num", cell: (row) => `${count(row.position)} of ${count(row.total)}` },
    { label: "Dead letters", kind: "num", cell: (row) => (row.parked ? count(row.parked) : "–") },
    ...(mayDo("watches:replay") ? [{ label: "", kind: "tight", head: html`<span class="hidden">Act</span>`, cell: (row) => replayButton(row, path) }] : []),
  ],
})}${pager(page)}`;

// A round is one of its branch: another branch begins with its newest round.
function otherBranch(form) {
  form.elements.round.value = "";
  form.requestSubmit();
}

function changes(page, watch, staff, { round, path }) {
  const form = html`<form class="bar" method="get" role="search" aria-label="Changes of a path">
    <input type="hidden" name="tab" value="changes"><input type="hidden" name="round" value=${round ?? ""}><div class="field grow"><label for="change-path">Path, or a glob such as docs/**</label>
    <input id="change-path" name="path" class="mono" type="search" autocomplete="off" spellcheck="false" .value=${path ?? ""}></div>
    ${watch.branches.length > 1 ? html`<div class="field"><label for="change-branch">Branch</label><select id="change-branch" name="branch"
      @change=${(event) => otherBranch(event.target.form)}>
      ${watch.branches.map(({ branch }) => html`<option value=${branch} .selected=${branch === page.branch}>${ref(branch)}</option>`)}</select></div>` : nothing}
    <button class="button" type="submit">Apply</button></form>`;
  const title = page.round ? html`<p class="muted">Round ${page.round} of ${ref(page.branch)}, begun ${moment(new Date(page.round).toISOString())}: ${count(page.settled)} of ${plural(page.total, "change is", "changes are")} settled.</p>` : nothing;
  return html`${form}${title}${table({
    caption: "Changes in the order of their delivery", rows: page.items,
    none: empty("No change to show", page.why ?? "Nothing in this round is meant by the filter."),
    columns: [
      { label: "Position", kind: "num", cell: (row) => count(row.position) },
      { label: "Path", kind: "wide", cell: (row) => html`<a href=${link("delivery", { app: staff, id: row.id })}>${visible(row.path)}</a>` },
      { label: "Change", kind: "tight", cell: (row) => changeWords(row.type) },
      { label: "State", kind: "tight", cell: (row) => changeBadge(row.state) },
      { label: "Settled", kind: "tight", cell: (row) => moment(row.settled_at) },
      { label: "Dead letter", kind: "tight", cell: (row) => (row.dead_letter_id ? html`<a href=${link("letter", { app: staff, id: row.dead_letter_id })}>dead letter</a>` : "–") },
    ],
  })}${pager(page)}`;
}

// The hooks of the app that ask for a scan of this repository, each with the newest request.
const hookWords = (hooks) => (hooks.length ? hooks.map(({ name, provider, last_receipt: last }, at) => html`${at ? html`<br>` : nothing}${name} of ${provider}: ${last
  ? html`${words(last.verdict)} ${moment(last.received_at)}` : "no request yet"}`) : "none of the app's own; the Git host is asked from time to time");

function scans(watch, hooks) {
  const { scan, breaker } = watch;
  return html`<div class="card padded">${pairs([
    ["Last scan", html`${moment(scan.last_at)}${scan.took_ms !== null && scan.took_ms !== undefined ? html`<span class="muted">, took ${span(scan.took_ms)}</span>` : nothing}`],
    ["Outcome", scan.outcome ? words(scan.outcome) : "–"], scan.reason && ["Because", scan.reason],
    ["Fetched", bytes(scan.bytes)], hooks && ["Hooks", hookWords(hooks)], ["Next scan", moment(scan.next_at)], ["Failures in a row", count(scan.failures)],
    ["Breaker of the Git host", breaker.state === "open" ? badge("bad", "open: it is asked now and then only") : badge("good", "closed")],
    breaker.probe_at && ["Next probe", moment(breaker.probe_at)]])}</div>`;
}

const settings = (watch, staff) => html`<div class="card padded">${pairs([
  ["Watch", code(watch.repository_id)], ["Repository", html`<span class="mono">${watch.github_url}</span>`],
  watch.moved_to && ["Moved to", watch.moved_to], ["Follows", selectorWords(watch.selector)],
  ["Include", watch.include.length ? code(watch.include.join(" ")) : "everything"], ["Exclude", watch.exclude.length ? code(watch.exclude.join(" ")) : "nothing"],
  ["Commits", watch.mode === "every" ? "each by itself" : "the newest"], ["Content", watch.content === "none" ? "left out" : `inline, up to ${bytes(watch.max_size)}`],
  ["Symbolic links", watch.symlinks], ["A vanished branch", words(watch.on_branch_gone)], ["Credential", watch.has_token ? "yes" : "none"],
  ["Goes to", goesTo(watch, staff, "the app's endpoint")],
  ["Watched since", moment(watch.created_at)]])}</div>`;

function view({ data, query }) {
  const { watch, app } = data;
  const staff = isStaff() ? app.app_id : undefined;
  const crumbs = html`${isStaff() ? html`<a href=${link("apps")}>Apps</a> / ` : nothing}<a href=${link("app", { app: staff })}>${app.app_name}</a> /`;
  const tab = tabOf(query);
  const body = () => {
    if (tab === "rounds" && data.rounds) return section("Rounds", rounds(data.rounds, ofApp(app.app_id, `repositories/${part(watch.repository_id)}`)));
    if (tab === "changes" && data.changes) return section("Changes", changes(data.changes, watch, staff, query));
    if (tab === "events" && data.entries) {
      return section("What happened", html`${table({ caption: "Entries of the ledger about this watch", rows: data.entries.items,
        none: empty("Nothing happened", "A watch for which everything goes well has no entries."),
        columns: entryColumns({ hrefOf: () => link("watch", { app: staff, id: watch.repository_id }) }) })}${pager(data.entries)}`);
    }
    if (tab === "settings") return section("Settings", settings(watch, staff));
    if (tab) return loading();
    const letters = watch.dead_letters ? html`<a href=${link("letters", { app: staff, watch: watch.repository_id })}>${plural(watch.dead_letters, "dead letter")}</a>` : nothing;
    return html`${fillsQueue(watch) ? section("Tasks", tasksOfWatch(watch, staff)) : nothing}
      ${section("Branches", branches(watch, data.failed ?? [], staff), letters)}${section("Scans", scans(watch, data.hooks))}`;
  };
  return html`${heading(watch.repository, { crumbs, text: selectorWords(watch.selector), buttons: watchButtons(app.app_id, watch) })}
    ${standing(watch)}${tabs("Parts of this watch", TABS, tab)}<div class="sections">${body()}</div>`;
}

export default { title: (data) => data.watch.repository, load, view };
