// One app: how its endpoint does, its watches, letters and subscriptions, and what may be done about them. The
// entries of its ledger come live.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appItself, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { link } from "../core/router.js";
import { followLedger } from "../core/live.js";
import { count } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { section, table, tabs } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge, code, moment, pairs } from "../parts/words.js";
import { deliverySearch, entryColumns, watchColumns } from "../parts/fields.js";
import { redriveColumns, testButton, cancelRedrives, enableButton } from "../parts/acts.js";
import { subscriptionColumns } from "../parts/subscriptions.js";
import { tokensSection } from "./tokens.js";

const SHOWN = 20;
const TABS = [["", "Overview"], ["redrives", "Redrives"], ["ledger", "Ledger"], ["tokens", "Tokens"]];
// Tabs that a viewer could read, and has no use for, ask for what can be done there.
const NEEDS = { redrives: "dead-letters:read", ledger: "ledger:read", tokens: "tokens:create" };

async function load(query, signal) {
  const app = appOf(query);
  const of = (rest, asked) => get(ofApp(app, rest), asked, signal);
  // What a narrowed token may not read is shown as a list without rows.
  const ifMay = (permission, rest, asked) => (mayDo(permission) ? of(rest, asked) : { items: [] });
  const shown = get(appItself(app), {}, signal);
  if (query.tab === "redrives") return { app: await shown, redrives: await of("dead-letters/redrives", { limit: 50, cursor: query.cursor }) };
  if (query.tab === "ledger") return { app: await shown, entries: await of("ledger", { limit: SHOWN }) };
  if (query.tab === "tokens") return { app: await shown, tokens: await get(`${appItself(app)}/tokens`, { limit: 100 }, signal) };
  const [own, watches, letters, subscriptions, entries] = await Promise.all([shown, ifMay("watches:read", "repositories", { limit: SHOWN }),
    ifMay("dead-letters:read", "dead-letters", { status: "open", limit: 100 }), ifMay("subscriptions:read", "subscriptions", { limit: SHOWN }),
    ifMay("ledger:read", "ledger", { limit: 8 })]);
  return { app: own, watches, letters, subscriptions, entries };
}

// New entries are put before those of the list as they come.
const live = (state, draw) => (mayDo("ledger:read") ? followLedger(state.local, ofApp(appOf(state.query), "ledger/follow"), {}, draw) : null);

function merged({ data, local }, most) {
  const known = new Set((local.entries ?? []).map((entry) => entry.entry_id));
  return [...(local.entries ?? []), ...data.entries.items.filter((entry) => !known.has(entry.entry_id))].slice(0, most);
}

function endpoint(app) {
  if (app.disabled) return html`<div class="card verdict bad"><strong>Nothing is sent to this app</strong><p>${app.disabled}</p></div>`;
  if (!app.endpoint) return html`<div class="card verdict good"><strong>The app pulls</strong><p>It asks for its changes; nothing is sent.</p></div>`;
  const { state, failures, last_error: error, probe_at: probe } = app.endpoint;
  if (state === "open") {
    return html`<div class="card verdict bad"><strong>The endpoint fails</strong>
      <p>${error || `${failures} failures in a row`}${probe ? html`; the next probe is due ${moment(probe)}` : nothing}.</p>
      <p class="muted">Delivery goes on by itself with the first probe that the endpoint takes.</p></div>`;
  }
  if (failures) return html`<div class="card verdict warn"><strong>The endpoint had failures</strong><p>${count(failures)} in a row; ${error}</p></div>`;
  return html`<div class="card verdict good"><strong>The endpoint takes deliveries</strong><p>${app.base_url}</p></div>`;
}

const facts = (app) => html`<div class="card padded">${pairs([
  ["App", code(app.app_id)], ["Receives at", app.base_url ?? "nowhere: it pulls"], ["Contact", app.email],
  app.description && ["For", app.description], ["Format", app.delivery.format], ["Order", app.delivery.order],
  ["In flight", count(app.delivery.max_in_flight)], ["Batches", app.delivery.batch ? `up to ${app.delivery.batch.count}` : "no"],
  ["Signing keys", count(app.signing_keys)], ["Registered", moment(app.created_at)]])}</div>`;

function overview({ data, local }, id) {
  const { app, watches, letters, subscriptions } = data;
  const staff = isStaff() ? id : undefined;
  const open = letters.items.length;
  const isAllowed = mayDo("watches:create");
  return html`${endpoint(app)}
    ${section("Watches", table({ caption: "Watches of this app", rows: watches.items,
      none: empty("Nothing is watched yet", "The app gets the changes of each repository that it watches.", isAllowed ? html`<a class="button first" href=${link("start", { app: staff })}>Watch a repository</a>` : nothing),
      columns: watchColumns({ hrefOf: (row) => link("watch", { app: staff, id: row.repository_id }) }) }),
      watches.next_cursor ? html`<a href=${link("watches", { app: staff })}>All watches</a>` : nothing)}
    <div class="columns">
      ${section("Dead letters", open ? html`<div class="card padded"><p><strong>${count(open)}${letters.next_cursor ? " or more" : ""}</strong>
        open. <a href=${link("letters", { app: staff })}>Look at them, send them again or dismiss them</a>.</p></div>`
        : html`<div class="card">${empty("No open dead letters", "Nothing was given up that is not settled by now.")}</div>`)}
      ${section("Find what became of a path", deliverySearch(staff))}
    </div>
    ${section("What happened", entries(merged({ data, local }, 8), staff), html`<a href=${link("ledger", { app: staff })}>The whole ledger</a>`)}
    ${section("Subscriptions", table({ caption: "Subscriptions of this app", rows: subscriptions.items,
      none: empty("No subscription", "A subscription sends the entries of the ledger somewhere."),
      columns: subscriptionColumns((row) => link("subscription", { app: staff, id: row.subscription_id })) }))}
    ${section("Settings", facts(app))}`;
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
      return section("Redrives", table({ caption: "Redrives, the newest first", rows: data.redrives.items,
        none: empty("No redrive was asked for", "Dead letters that are sent again show their progress here."), columns: redriveColumns }),
      mayDo("dead-letters:redrive") ? cancelRedrives(id) : nothing);
    }
    if (query.tab === "ledger" && data.entries) return section("Ledger", entries(merged(state, 200), isStaff() ? id : undefined));
    if (query.tab === "tokens" && data.tokens) return tokensSection(data.tokens, `${appItself(id)}/tokens`, "tokens");
    return data.watches ? overview(state, id) : nothing;
  };
  return html`${heading(app.app_name, { crumbs, buttons, text: app.disabled ? badge("bad", "disabled") : nothing })}
    ${tabs("Parts of this app", list, query.tab ?? "")}<div class="sections">${body()}</div>`;
}

export default { title: (data) => data.app.app_name, load, view, live };
