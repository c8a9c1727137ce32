// Schedules, which create tasks at ticks of a clock: of all apps for the staff, its own for an app.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { here, link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { scheduleColumns } from "../tasks/schedules.js";

const load = (query, signal) => {
  const app = appOf(query);
  return get(app ? ofApp(app, "schedules") : "admin/schedules", { q: query.q, cursor: query.cursor, limit: 50 }, signal);
};

function view({ data, query }) {
  const app = appOf(query);
  const staff = isStaff() ? app : undefined;
  const all = staff ? html`<a href=${here({ app: undefined, cursor: undefined })}>Schedules of all apps</a>` : nothing;
  const of = (row) => (isStaff() ? row.app_id ?? app : undefined);
  const make = app && mayDo("schedules:update") ? html`<a class="button first" href=${link("schedule", { app: staff, tab: "make" })}>Create a schedule</a>` : nothing;
  const none = query.q ? empty("No schedule matches this filter", null)
    : empty("No schedule", html`A schedule creates a task, or resyncs a repository, at each tick of a cron line.${staff || !isStaff() ? nothing : " The page of an app leads to where its own are created."}`, make);
  return html`${heading("Schedules", { text: html`Tasks that are created at moments of a clock. ${all}`, buttons: make })}
    ${filterBar({ placeholder: "state:failing command:~report zone:Europe/Rome" })}
    ${table({ caption: "Schedules by their names", rows: data.items, none,
      columns: scheduleColumns({ hasApp: isStaff() && !app, hrefOf: (row) => link("schedule", { app: of(row), name: row.name }),
        queueOf: (row) => link("queue", { app: of(row), command: row.command }),
        watchOf: (row) => link("watch", { app: of(row), id: row.repository_id }) }) })}${pager(data)}`;
}

export default { title: "Schedules", load, view, blank: { items: [] } };
