// One app: how its endpoint does, its watches, letters and subscriptions, and what may be done about them. The
// entries of its ledger come live.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appItself, appOf, isStaff, mayDo, maySee, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { followLedger } from "../core/live.js";
import { count, plural, span } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { pager, section, table, tabs } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge, code, moment, pairs, stateBadge, toneOf } from "../parts/words.js";
import { deliverySearch, entryColumns, watchColumns } from "../parts/fields.js";
import { redriveColumns, testButton, cancelRedrives, enableButton } from "../parts/acts.js";
import { numbers, rateWords, plot, secondsOf } from "../parts/plot.js";
import { subscriptionColumns } from "../parts/subscriptions.js";
import { hooksSection } from "../parts/hooks.js";
import { tokensSection } from "./tokens.js";

const SHOWN = 20;
const TABS = [["", "Overview"], ["redrives", "Redrives"], ["ledger", "Ledger"], ["hooks", "Hooks"], ["tokens", "Tokens"]];
// Tabs that a viewer could read, and has no use for, ask for what can be done there.
const NEEDS = { redrives: "dead-letters:read", ledger: "ledger:read", hooks: "hooks:read", tokens: "tokens:create" };

async function load(query, signal) {
  const app = appOf(query);
  const of = (rest, asked) => get(ofApp(app, rest), asked, signal);
  // What a narrowed token may not read is not asked for, and not shown.
  const ifMay = (permission, rest, asked) => (mayDo(permission) ? of(rest, asked) : { items: [] });
  const shown = get(appItself(app), {}, signal);
  if (query.tab === "redrives") return { app: await shown, redrives: await of("dead-letters/redrives", { limit: 50, cursor: query.cursor }) };
  if (query.tab === "ledger") return { app: await shown, entries: await of("ledger", { limit: SHOWN }) };
  if (query.tab === "hooks") return { app: await shown, hooks: await of("hooks", { limit: 50, cursor: query.cursor }) };
  if (query.tab === "tokens") return { app: await shown, tokens: await get(`${appItself(app)}/tokens`, { limit: 50, cursor: query.cursor }, signal) };
  const [own, watches, letters, subscriptions, entries, samples] = await Promise.all([shown, ifMay("watches:read", "repositories", { limit: SHOWN }),
    ifMay("dead-letters:read", "dead-letters", { status: "open", limit: 100 }), ifMay("subscriptions:read", "subscriptions", { limit: SHOWN }),
    ifMay("ledger:read", "ledger", { limit: 8 }), get(`${appItself(app)}/samples`, {}, signal)]);
  return { app: own, watches, letters, subscriptions, entries, samples };
}

// New entries are put before those of the list as they come.
const live = (state, draw) => (mayDo("ledger:read") ? followLedger(state.local, ofApp(appOf(state.query), "ledger/follow"), {}, draw) : null);

function merged({ data, local }, most) {
  const known = new Set((local.entries ?? []).map((entry) => entry.entry_id));
  return [...(local.entries ?? []), ...data.entries.items.filter((entry) => !known.has(entry.entry_id))].slice(0, most);
}

// States of a watch that say that its receiver does not take a change.
const REFUSED = ["blocked", "in_grace", "retrying"];

// Whether the receiver of a watch has taken something.
const hasSent = ({ branches }) => branches.some(({ held_commit: held, round }) => held || round?.position);

// `watches`: some of its watches, which say more than the breaker: that counts failures of the endpoint, not of
// single changes.
function endpoint(app, { items: watches, next_cursor: more }, staff) {
  if (app.disabled) return html`<div class="card verdict bad"><strong>Nothing is sent to this app</strong><p>${app.disabled}</p></div>`;
  if (!app.endpoint) return html`<div class="card verdict good"><strong>The app pulls</strong><p>It asks for its changes; nothing is sent.</p></div>`;
  const { state, failures, last_error: error, probe_at: probe } = app.endpoint;
  if (state === "open") {
    return html`<div class="card verdict bad"><strong>The endpoint fails</strong>
      <p>${error || `${plural(failures, "failure")} in a row`}${probe ? html`; the next probe is due ${moment(probe)}` : nothing}.</p>
      <p class="muted">Delivery goes on by itself with the first probe that the endpoint takes.</p></div>`;
  }
  if (failures) return html`<div class="card verdict warn"><strong>The endpoint had failures</strong><p>${count(failures)} in a row; ${error}</p></div>`;
  const [stuck] = watches.filter(({ sink, effective_state: is }) => !sink && REFUSED.includes(is));
  if (stuck) {
    return html`<div class="card verdict ${toneOf(stuck.effective_state)}"><strong>The endpoint does not take everything</strong>
      <p><a href=${link("watch", { app: staff, id: stuck.repository_id })}>${stuck.repository}</a> ${stateBadge(stuck.effective_state)} ${stuck.effective_reason ?? nothing}</p></div>`;
  }
  if (mayDo("watches:read") && !more && !watches.some((watch) => !watch.sink && hasSent(watch))) {
    return html`<div class="card verdict"><strong>No watch has sent anything yet</strong><p>A test shows whether ${app.base_url} takes deliveries.</p></div>`;
  }
  return html`<div class="card verdict good"><strong>The endpoint takes deliveries</strong><p>${app.base_url}</p></div>`;
}

const facts = (app, staff) => html`<div class="card padded">${pairs([
  ["App", code(app.app_id)], ["Receives at", app.base_url ?? "no endpoint"], ["Contact", app.email],
  app.description && ["For", app.description], ["Format", app.delivery.format], ["Order", app.delivery.order],
  ["In flight", count(app.delivery.max_in_flight)], ["Batches", app.delivery.batch ? `up to ${plural(app.delivery.batch.count, "change")}` : "no"],
  ["Signing keys", count(app.signing_keys)],
  (maySee("queues") || maySee("schedules")) && ["Work", html`<a href=${link("queues", { app: staff })}>Queues</a> and <a href=${link("schedules", { app: staff })}>schedules</a>`], ["Registered", moment(app.created_at)]])}</div>`;

// The last hour of this app. A page that changes its app draws its plots again.
function history({ items }) {
  const at = items.map(secondsOf);
  const of = (name, divisor = 1) => items.map((row) => (row[name] === null ? null : row[name] / divisor));
  return html`<div class="columns">
      ${section("Lag", plot("app-lag", { at, unit: "s", lines: [{ label: "lag", values: of("lag_ms", 1000) }] }), html`<span class="muted small">the last hour</span>`)}
      ${section("Changes each second", plot("app-rates", { at, unit: "/s", lines: [{ label: "acknowledged", values: of("acknowledged_per_s") },
        { label: "attempts not taken", values: of("failed_per_s"), tone: "--bad", isDashed: true }] }), html`<span class="muted small">by this server</span>`)}
    </div>
    ${numbers(items, [
      { label: "Lag", kind: "num", cell: (row) => span(row.lag_ms) },
      { label: "Branches behind", kind: "num", cell: (row) => count(row.behind) },
      { label: "Acknowledged/s", kind: "num", cell: (row) => rateWords(row.acknowledged_per_s) },
      { label: "Not taken/s", kind: "num", cell: (row) => rateWords(row.failed_per_s) }])}`;
}

const ifSeen = (page, part) => (maySee(page) ? part() : nothing);

function overview({ data, local }, id) {
  const { app, watches, letters, subscriptions, samples } = data;
  const staff = isStaff() ? id : undefined;
  const open = letters.items.length;
  const isAllowed = mayDo("watches:create");
  return html`${endpoint(app, watches, staff)}
    ${ifSeen("watches", () => section("Watches", table({ caption: "Watches of this app", rows: watches.items,
      none: empty("Nothing is watched yet", "The app gets the changes of each repository that it watches.", isAllowed ? html`<a class="button first" href=${link("start", { app: staff })}>Watch a repository</a>` : nothing),
      columns: watchColumns({ hrefOf: (row) => link("watch", { app: staff, id: row.repository_id }) }) }),
      watches.next_cursor ? html`<a href=${link("watches", { app: staff })}>All watches</a>` : nothing))}
    <div class="columns">
      ${ifSeen("letters", () => section("Dead letters", open ? html`<div class="card padded"><p><strong>${letters.next_cursor ? `${count(open)} or more dead letters` : plural(open, "dead letter")}</strong>
        ${open === 1 ? "is" : "are"} open. <a href=${link("letters", { app: staff })}>${open === 1 ? "Look at it, redrive or dismiss it" : "Look at them, redrive or dismiss them"}</a>.</p></div>`
        : html`<div class="card">${empty("No open dead letters", "Every change that became a dead letter is settled by now.")}</div>`))}
      ${ifSeen("deliveries", () => section("Find what became of a path", deliverySearch(staff), html`<a href=${link("deliveries", { app: staff })}>All deliveries</a>`))}
    </div>
    ${history(samples)}
    ${ifSeen("ledger", () => section("What happened", entries(merged({ data, local }, 8), staff), html`<a href=${link("ledger", { app: staff })}>The whole ledger</a>`))}
    ${ifSeen("subscription", () => section("Subscriptions", table({ caption: "Subscriptions of this app", rows: subscriptions.items,
      none: empty("No subscription", "A subscription sends the entries of the ledger somewhere."),
      columns: subscriptionColumns((row) => link("subscription", { app: staff, id: row.subscription_id })) })))}
    ${section("Settings", facts(app, staff))}`;
}

const entries = (rows, staff) => table({ caption: "Entries of the ledger, the newest first", rows, isFresh: (row) => row.isFresh,
  none: empty("Nothing happened yet", "An app for which everything goes well has no entries."),
  columns: entryColumns({ hrefOf: (row) => link("watch", { app: staff, id: row.repository_id }) }) });

function view(state) {
  const { data, query } = state;
  const app = data.app;
  const id = app.app_id;
  const buttons = html`${mayDo("apps:update") ? enableButton(app) : nothing}${app.base_url && mayDo("apps:test") ? testButton(`${appItself(id)}/test`) : nothing}
    ${mayDo("watches:create") ? html`<a class="button first" href=${link("start", { app: isStaff() ? id : undefined })}>Watch a repository</a>` : nothing}`;
  const crumbs = isStaff() ? html`<a href=${link("apps")}>Apps</a> /` : nothing;
  const list = TABS.filter(([name]) => !NEEDS[name] || mayDo(NEEDS[name]));
  const body = () => {
    if (query.tab === "redrives" && data.redrives) {
      return section("Redrives", html`${table({ caption: "Redrives, the newest first", rows: data.redrives.items,
        none: empty("No redrive was asked for", "Redrives of dead letters show their progress here."), columns: redriveColumns })}${pager(data.redrives)}`,
      mayDo("dead-letters:redrive") ? cancelRedrives(id) : nothing);
    }
    if (query.tab === "ledger" && data.entries) return section("Ledger", entries(merged(state, 200), isStaff() ? id : undefined));
    if (query.tab === "hooks" && data.hooks) return hooksSection(data.hooks, ofApp(id, "hooks"));
    if (query.tab === "tokens" && data.tokens) return tokensSection(data.tokens, `${appItself(id)}/tokens`, "tokens");
    return data.watches ? overview(state, id) : nothing;
  };
  return html`${heading(app.app_name, { crumbs, buttons, text: app.disabled ? badge("bad", "disabled") : nothing })}
    ${tabs("Parts of this app", list, query.tab ?? "")}<div class="sections">${body()}</div>`;
}

export default { title: (data) => data.app.app_name, load, view, live };
