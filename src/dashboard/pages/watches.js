// Watches: of all apps for the staff, its own for an app.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { isStaff, mayDo } from "../core/session.js";
import { link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { watchColumns } from "../parts/fields.js";

const CONDITIONS = [["", "all"], ["behind", "behind"], ["blocked", "blocked"], ["failing", "failing"], ["paused", "paused"]];

function load(query, signal) {
  const asked = { q: query.q, cursor: query.cursor, limit: 50 };
  if (!isStaff()) return get("repositories", asked, signal);
  return get("admin/watches", { ...asked, condition: query.condition, app_id: query.app }, signal);
}

const view = ({ data, query }) => html`${heading("Watches", { text: "What each app follows, and how far it has come.", buttons: !isStaff() && mayDo("watches:create") ? html`<a class="button first" href=${link("start")}>Watch a repository</a>` : nothing })}
  ${filterBar({ placeholder: "name:~docs state:paused", choices: isStaff() ? [{ name: "condition", label: "State", options: CONDITIONS }] : [] })}
  ${table({
    caption: "Watches",
    rows: data.items,
    none: query.q || query.condition ? empty("No watch matches", "Take the filter away to see all.")
      : empty("Nothing is watched yet", html`<code>tidings repository add URL</code> watches a repository.`),
    columns: watchColumns({ hasApp: isStaff(), hrefOf: (row) => link("watch", { app: isStaff() ? row.app_id : undefined, id: row.repository_id }) }),
  })}${pager(data)}`;

export default { title: "Watches", load, view, blank: { items: [] } };
