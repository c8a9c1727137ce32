// All apps, with what may be done to find one.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { mayDo } from "../core/session.js";
import { link } from "../core/router.js";
import { heading } from "../parts/shell.js";
import { filterBar, pager, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge, moment } from "../parts/words.js";

const load = (query, signal) => get("admin/apps", { q: query.q, cursor: query.cursor, limit: 50 }, signal);

const view = ({ data, query }) => html`${heading("Apps", { text: "Programs that are sent the changes of repositories.", buttons: mayDo("apps:register") ? html`<a class="button first" href=${link("start")}>Register an app</a>` : nothing })}
  ${filterBar({ placeholder: "name:~docs state:disabled" })}
  ${table({
    caption: "Apps, oldest first",
    rows: data.items,
    none: query.q ? empty("No app matches this filter", null) : empty("No app is registered yet", "An app is a program that is sent the changes of repositories.", mayDo("apps:register") ? html`<a class="button first" href=${link("start")}>Register an app</a>` : nothing),
    columns: [
      { label: "App", kind: "wide", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a><span class="sub mono">${row.app_id}</span>` },
      { label: "Receives at", kind: "wide", cell: (row) => row.base_url ?? html`<span class="muted">no endpoint</span>` },
      { label: "State", kind: "tight", cell: (row) => (row.disabled ? badge("bad", "disabled") : badge("good", "served")) },
      { label: "Registered", kind: "tight", cell: (row) => moment(row.created_at) },
    ],
  })}${pager(data)}`;

export default { title: "Apps", load, view, blank: { items: [] }, refreshMs: 15_000 };
