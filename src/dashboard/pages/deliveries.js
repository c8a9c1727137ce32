// What became of a path, or of whatever a filter means: over all deliveries of an app, or of all apps for the
// staff.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appSeen, appOf, isStaff, ofApp } from "../core/session.js";
import { here, link } from "../core/router.js";
import { plural } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { pager, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { moment } from "../parts/words.js";
import { deliveryColumns } from "../parts/fields.js";

const STATES = [["", "tried"], ["delivered", "delivered"], ["failed", "failed"], ["parked", "parked"], ["pending", "pending"], ["dropped", "dropped"]];

const isGlob = (path) => /[*?[\]{}]/.test(path) || path.endsWith("/");

// What is asked for a path. A name may look like a glob: only where nothing was delivered under that very name
// is it taken for one. Bytes that are no text have `base64`.
async function pathOf(list, { path, base64, exact, status, q }, signal) {
  if (base64) return { path_base64: base64 };
  if (!path || exact || !isGlob(path)) return path ? { path } : {};
  const { items } = await get(list, { path, status, q, limit: 1 }, signal);
  return items.length ? { path } : { path_glob: path };
}

async function load(query, signal) {
  const app = appOf(query);
  const list = app ? ofApp(app, "deliveries") : "admin/deliveries";
  const asked = await pathOf(list, query, signal);
  const page = get(list, { q: query.q, status: query.status, cursor: query.cursor, limit: 50, ...asked }, signal);
  const [rows, own] = await Promise.all([page, app ? appSeen(app, signal) : null]);
  return { page: rows, app: own, isGlob: Boolean(asked.path_glob) };
}

const about = (query, data) => (!query.path ? "What was sent, and what became of it." : data.isGlob
  ? "What became of the paths that match this glob. Nothing was delivered under this very name." : "What became of this path.");

const search = (query) => html`<form class="bar" method="get" role="search" aria-label="Deliveries">
  <input type="hidden" name="exact" value=""><input type="hidden" name="base64" value="">
  <div class="field grow"><label for="path">Path, or a glob such as docs/**</label>
    <input id="path" name="path" class="mono" type="search" autocomplete="off" spellcheck="false" .value=${query.path ?? ""}></div>
  <div class="field grow"><label for="q">Filter</label>
    <input id="q" name="q" class="mono" type="search" autocomplete="off" spellcheck="false" .value=${query.q ?? ""} placeholder="state:failed branch:main"></div>
  <div class="field"><label for="choice-status">State</label><select id="choice-status" name="status" @change=${(event) => event.target.form.requestSubmit()}>
    ${STATES.map(([value, text]) => html`<option value=${value} .selected=${(query.status ?? "") === value}>${text}</option>`)}</select></div>
  <button class="button" type="submit">Apply</button></form>`;

function view({ data, query }) {
  const { page, app } = data;
  const of = (row) => (isStaff() ? app?.app_id ?? row.app_id : undefined);
  const none = page.next_cursor ? empty("None on this page", html`${page.back_to ? html`The search came back to ${moment(page.back_to)}. ` : nothing}It goes on with the next page.`)
    : empty("No delivery to show", query.path ? "Nothing was delivered for this path, as far back as is known." : "Nothing was delivered yet.");
  const all = isStaff() && app ? html`<a href=${here({ app: undefined, cursor: undefined })}>Deliveries of all apps</a>` : nothing;
  const crumbs = app ? html`<a href=${link("app", { app: of() })}>${app.app_name}</a> /` : nothing;
  return html`${heading(query.path || "Deliveries", { crumbs, text: html`${about(query, data)} ${all}` })}
    ${search(query)}
    ${table({ caption: "Deliveries, the newest first", rows: page.items, none,
      columns: deliveryColumns({ hasApp: !app, hrefOf: (row) => link("delivery", { app: of(row), id: row.id }), watchOf: (row) => link("watch", { app: of(row), id: row.repository_id }) }) })}
    ${page.unreadable?.length ? html`<p class="muted">${plural(page.unreadable.length, "round is", "rounds are")} not shown whole: their trees cannot be read any more.</p>` : nothing}
    ${pager(page)}`;
}

export default { title: (_, query) => query.path || "Deliveries", load, view, blank: { page: { items: [] }, app: null } };
