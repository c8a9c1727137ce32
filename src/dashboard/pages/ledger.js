// What happened, live: to all apps for the staff, to itself for an app.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { followLedger, TYPES } from "../core/live.js";
import { here, link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge } from "../parts/words.js";
import { entryColumns } from "../parts/fields.js";
import { subscriptionColumns } from "../parts/subscriptions.js";

const KINDS = [["", "everything"], ...TYPES.filter((type) => type !== "gap").map((type) => [type, type])];
const SHOWN_MAX = 250;

async function load(query, signal) {
  const app = appOf(query);
  const asked = { q: query.q, type: query.type, cursor: query.cursor, limit: 50 };
  if (!app) return { entries: await get("admin/ledger", asked, signal) };
  const [entries, subscriptions] = await Promise.all([get(ofApp(app, "ledger"), asked, signal), mayDo("subscriptions:read") ? get(ofApp(app, "subscriptions"), { limit: 50 }, signal) : null]);
  return { entries, subscriptions };
}

// Only the first page is live: older pages stand still.
function live(state, draw) {
  const { query, local } = state;
  const app = appOf(query);
  if (query.cursor) return null;
  const path = app ? ofApp(app, "ledger/follow") : "admin/ledger/follow";
  return followLedger(local, path, { q: query.q, type: query.type }, draw);
}

const STREAM = { open: ["good", "live"], opening: ["", "connecting"], lost: ["warn", "connecting again"], closed: ["warn", "connecting again"] };

function view({ data, query, local }) {
  const app = appOf(query);
  const staff = isStaff() ? app : undefined;
  const come = local.entries ?? [];
  const known = new Set(come.map((entry) => entry.entry_id));
  const rows = [...come, ...data.entries.items.filter((entry) => !known.has(entry.entry_id))].slice(0, SHOWN_MAX);
  const [tone, text] = STREAM[local.stream] ?? [];
  const all = isStaff() && app ? html`<a href=${here({ app: undefined, cursor: undefined })}>The ledger of all apps</a>` : nothing;
  const hrefOf = (row) => link("watch", { app: isStaff() ? row.app_id : undefined, id: row.repository_id });
  return html`${heading("Ledger", { text: html`Each change of state, since when and why. ${all}` })}
    ${filterBar({ placeholder: "type:~blocked origin:person since:-2h", choices: [{ name: "type", label: "What", options: KINDS }] })}
    ${section("Entries", table({ caption: "Entries, the newest first", rows, isFresh: (row) => row.isFresh,
      none: empty(query.q || query.type ? "No entry matches" : "Nothing happened yet", "An app for which everything goes well has no entries."),
      columns: entryColumns({ hasApp: isStaff() && !app, hrefOf }) }), text ? html`<span role="status">${badge(tone, text)}</span>` : nothing)}
    ${pager(data.entries)}
    ${data.subscriptions ? section("Subscriptions", table({ caption: "Readers of this ledger", rows: data.subscriptions.items,
      none: empty("No subscription", "A subscription sends the entries that its filter means somewhere."),
      columns: subscriptionColumns((row) => link("subscription", { app: staff, id: row.subscription_id })) })) : nothing}`;
}

export default { title: "Ledger", load, view, live, blank: { entries: { items: [] } } };
