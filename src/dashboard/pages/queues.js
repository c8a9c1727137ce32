// The queues of workers: of all apps for the staff, its own for an app.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { appOf, isStaff, ofApp } from "../core/session.js";
import { here, link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { queueColumns } from "../tasks/tasks.js";

const load = (query, signal) => {
  const app = appOf(query);
  return get(app ? ofApp(app, "queues") : "admin/queues", { q: query.q, cursor: query.cursor, limit: 50 }, signal);
};

function view({ data, query }) {
  const app = appOf(query);
  const all = isStaff() && app ? html`<a href=${here({ app: undefined, cursor: undefined })}>Queues of all apps</a>` : nothing;
  const hrefOf = (row) => link("queue", { app: isStaff() ? row.app_id ?? app : undefined, command: row.command });
  return html`${heading("Queues", { text: html`Work that programs claim and end. ${all}` })}
    ${filterBar({ placeholder: "command:~index state:paused dead:1" })}
    ${table({ caption: "Queues by their commands", rows: data.items,
      none: query.q ? empty("No queue matches this filter", null) : empty("No queue", "A queue is there from its first task on: POST /api/tasks, tidings task create, or a watch whose changes become tasks."),
      columns: queueColumns({ hasApp: isStaff() && !app, hrefOf }) })}${pager(data)}`;
}

export default { title: "Queues", load, view, blank: { items: [] } };
