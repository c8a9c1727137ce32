// Dead letters: over all apps for the staff, its own for an app. Chosen ones, or all that the filter means, are
// redriven or dismissed.
import { html, nothing } from "../vendor/lit-html.js";
import { get, post } from "../core/api.js";
import { appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { here, link, redraw, state as page } from "../core/router.js";
import { count, plural } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { button } from "../parts/dialog.js";
import { letterColumns } from "../parts/fields.js";
import { cancelRedrives, progress, redriveColumns } from "../parts/acts.js";

const STATUSES = [["", "open"], ["redrive_requested", "redrive requested"], ["redriven", "redriven"], ["superseded", "superseded"], ["dismissed", "dismissed"], ["all", "all"]];
const REDRIVES_SHOWN = 5;

const statusOf = (query) => (query.status === "all" ? undefined : query.status || "open");

// A letter that somebody else settled, or that is on this page no more, is not chosen any more.
function prune(local, rows) {
  const open = new Set(rows.filter(({ status }) => status === "open").map((row) => row.dead_letter_id));
  for (const id of local.chosen?.keys() ?? []) if (!open.has(id)) local.chosen.delete(id);
}

async function load(query, signal, { local }) {
  const loaded = await rowsOf(query, signal);
  prune(local, loaded.letters.items);
  return loaded;
}

async function rowsOf(query, signal) {
  const app = appOf(query);
  const asked = { q: query.q, status: statusOf(query), repository_id: query.watch, cursor: query.cursor, limit: 50 };
  if (!app) return { letters: await get("admin/dead-letters", asked, signal) };
  const [letters, redrives] = await Promise.all([get(ofApp(app, "dead-letters"), asked, signal),
    get(ofApp(app, "dead-letters/redrives"), { limit: REDRIVES_SHOWN }, signal)]);
  return { letters, redrives };
}

// The chosen letters of each app: the API takes those of one app at a time.
function byApp(chosen) {
  const apps = new Map();
  for (const [id, app] of chosen) apps.set(app ?? appOf(page.query), [...(apps.get(app ?? appOf(page.query)) ?? []), id]);
  return apps;
}

async function each(verb) {
  const apps = byApp(page.local.chosen);
  let done = 0;
  for (const [app, ids] of apps) {
    const answer = await post(ofApp(app, `dead-letters/${verb}`), { ids });
    done += answer.requested ?? answer.dismissed ?? 0;
  }
  page.local.chosen = new Map();
  return done;
}

// What the filter of the page means, as the bulk verbs take it.
const filter = (query) => Object.fromEntries(Object.entries({ q: query.q, repository_id: query.watch }).filter(([, value]) => value));

// Asks how many letters a verb would mean, and makes the question of that.
async function counted(app, query, verb, question) {
  const answer = await post(ofApp(app, `dead-letters/${verb}`), { ...filter(query), dry_run: true });
  if (!answer.would_request) throw new Error("no open dead letter is meant any more.");
  page.local.meant = answer.would_request;
  return question(answer.would_request);
}

// A request closes letters for some seconds and says whether more are left: it is sent until none is, or until
// those that are left are being sent by an open round.
async function dismissAll(app, query, local) {
  const meant = filter(query);
  const body = Object.keys(meant).length ? meant : { all: true };
  const bulk = { done: 0, total: local.meant ?? 0 };
  local.bulk = bulk;
  try {
    for (;;) {
      const answer = await post(ofApp(app, "dead-letters/dismiss"), body);
      bulk.done += answer.dismissed;
      bulk.total = Math.max(bulk.total, bulk.done);
      redraw();
      if (!answer.more || !answer.dismissed) return { dismissed: bulk.done, bound: answer.bound };
    }
  } finally {
    local.bulk = null;
  }
}

const dismissedAll = ({ dismissed: number, bound }) => (bound
  ? `${dismissed(number)} ${plural(bound, "dead letter stays", "dead letters stay")} open: the round under way sends them.` : dismissed(number));

const resent = (number) => `A redrive of ${plural(number, "dead letter")} was asked for.`;
const dismissed = (number) => `${plural(number, "dead letter is", "dead letters are")} dismissed.`;

const mayAct = () => mayDo("dead-letters:redrive") || mayDo("dead-letters:dismiss");

function acts(query, local) {
  const [mayRedrive, mayDismiss] = [mayDo("dead-letters:redrive"), mayDo("dead-letters:dismiss")];
  const chosen = local.chosen?.size ?? 0;
  const app = appOf(query);
  const isOpen = statusOf(query) === "open";
  const all = app && isOpen && !chosen;
  return html`<div class="bar acts" role="group" aria-label="What to do with dead letters">
    <span class="muted" aria-live="polite">${chosen ? `${count(chosen)} chosen` : app ? "Choose dead letters, or act on all that the filter means." : "Choose dead letters to act on them."}</span>
    ${chosen ? html`${mayRedrive ? button("Redrive", { tone: "first", work: () => each("redrive"), done: resent }) : nothing}
      ${mayDismiss ? button("Dismiss", { tone: "danger", work: () => each("dismiss"), done: dismissed, question: {
        title: `Dismiss ${plural(chosen, "dead letter")}?`, text: "What is dismissed is closed by hand and not redriven. The app gets a path as soon as it changes.", yes: "Dismiss", isDanger: true } }) : nothing}
      <button class="button" type="button" @click=${() => { local.chosen = new Map(); redraw(); }}>Choose none</button>` : nothing}
    ${all ? html`${mayRedrive ? button("Redrive all", { work: () => post(ofApp(app, "dead-letters/redrive"), filter(query)), done: ({ requested }) => resent(requested),
      question: () => counted(app, query, "redrive", (number) => ({ title: `Redrive ${plural(number, "dead letter")}?`, text: "Each is sent as its branch is now. Newer content is never overwritten.", yes: "Redrive them" })) }) : nothing}
      ${mayDismiss ? button("Dismiss all", { tone: "danger", work: () => dismissAll(app, query, local), done: dismissedAll,
        question: () => counted(app, query, "dismiss", (number) => ({ title: `Dismiss ${plural(number, "dead letter")}?`, text: "What is dismissed is closed by hand and not redriven. The app gets a path as soon as it changes.", yes: "Dismiss them", isDanger: true })) }) : nothing}` : nothing}
    ${local.bulk ? html`<div class="grow">${progress(local.bulk.done, local.bulk.total, "Progress of the dismissal")}</div>` : nothing}</div>`;
}

function view({ data, query, local }) {
  const app = appOf(query);
  const none = data.letters.next_cursor ? empty("None on this page", "The search goes on with the next page.")
    : query.q || query.status ? empty("No dead letter matches", "Take the filter away to see what is open.") : empty("No open dead letters", "Every change that became a dead letter is settled by now.");
  const one = isStaff() && app ? html`<a href=${here({ app: undefined, watch: undefined, cursor: undefined })}>Dead letters of all apps</a>` : nothing;
  const hrefOf = (row) => link("letter", { app: isStaff() ? row.app_id ?? app : undefined, id: row.dead_letter_id });
  return html`${heading("Dead letters", { text: html`Changes that became dead letters, and why. ${one}` })}
    ${filterBar({ placeholder: "path:docs/** reason:rejected answer:~schema", choices: [{ name: "status", label: "State", options: STATUSES }] })}
    ${mayAct() && !page.problem ? acts(query, local) : nothing}
    ${table({ caption: "Dead letters, the newest first", rows: data.letters.items, none,
      columns: letterColumns({ hrefOf, hasApp: isStaff() && !app, local, redraw, mayAct: mayAct() }) })}
    ${pager(data.letters)}
    ${data.redrives?.items.length ? section("Redrives", table({ caption: "The newest redrives", rows: data.redrives.items, columns: redriveColumns }), mayDo("dead-letters:redrive") ? cancelRedrives(app) : nothing) : nothing}`;
}

export default { title: "Dead letters", load, view, blank: { letters: { items: [] } } };
