// Who did what, and whether the log is whole.
import { html } from "../vendor/lit-html.js";
import { get, getLong } from "../core/api.js";
import { here, link, state as page } from "../core/router.js";
import { count, plural } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { pager, table } from "../parts/table.js";
import { button } from "../parts/dialog.js";
import { empty } from "../parts/states.js";
import { badge, moment } from "../parts/words.js";
import { actionWords } from "../parts/audit-words.js";

const FIELDS = [["actor", "By"], ["action", "Action"], ["app", "App"], ["target", "Target"]];

const load = (query, signal) => get("admin/audit", { limit: 50, cursor: query.cursor, actor: query.actor, action: query.action, app: query.app, target: query.target }, signal);

const form = () => html`<form class="bar" method="get" role="search" aria-label="Rows of the log">${FIELDS.map(([name, text]) => html`
  <div class="field grow quarter"><label for="audit-${name}">${text}</label><input id="audit-${name}" name=${name} class="mono" type="search" autocomplete="off" spellcheck="false" .value=${page.query[name] ?? ""}></div>`)}
  <button class="button" type="submit">Apply</button></form>`;

const verified = ({ intact, rows, faults }) => (intact ? `The log is whole: ${plural(rows, "row")}.` : `The log has faults: ${faults.join("; ")}`);

// A name that may be broken at its underscores.
const atParts = (name) => name.split("_").map((part, at) => (at ? html`_<wbr>${part}` : part));

const actionCell = (row) => {
  const words = actionWords(row.action);
  return words ? html`${words}<span class="sub mono">${atParts(row.action)}</span>` : html`<code>${atParts(row.action)}</code>`;
};

// Ids that were made at about the same time begin alike: the end of an id tells them apart. The whole id is what a
// pointer shows, what a screen reader says, and what the filter holds.
const short = (id) => id.replace(/^([a-z]+_)[0-9A-Z]{20}([0-9A-Z]{6})$/, "$1…$2");
const idLink = (id, href) => html`<a class="mono ${short(id) === id ? "" : "nowrap"}" href=${href} title=${id}>${short(id)}</a>`;
// Leads to the rows that have the same in this field.
const narrowed = (field, id) => idLink(id, here({ [field]: id, cursor: undefined }));

// A row may stand for several acts of one kind.
const targetCell = ({ target }) => (/^times:\d+$/.test(target) ? plural(Number(target.slice(6)), "time") : target ? narrowed("target", target) : "–");

const view = ({ data }) => html`${heading("Audit log", { text: "Who did what, in a chain that shows whether a row was changed or taken out.",
  buttons: button("Check the whole log", { work: () => getLong("admin/audit/verify"), done: verified }) })}
  ${form()}
  ${table({
    caption: "Rows of the audit log, the newest first", rows: data.items, none: empty("No row matches", null),
    columns: [
      { label: "Row", kind: "num", cell: (row) => count(row.id) },
      { label: "When", kind: "tight", cell: (row) => moment(row.at) },
      { label: "By", cell: (row) => (row.actor ? narrowed("actor", row.actor) : "–") },
      { label: "Action", kind: "wide", cell: actionCell },
      { label: "App", cell: (row) => (row.app ? idLink(row.app, link("app", { app: row.app })) : "–") },
      { label: "Target", cell: targetCell },
      { label: "Result", kind: "tight", cell: (row) => badge(row.result === "ok" ? "good" : "bad", row.result) },
      { label: "From", kind: "tight", cell: (row) => row.address ?? "–" },
    ],
  })}${pager(data)}`;

export default { title: "Audit log", load, view, blank: { items: [] }, refreshMs: 15_000 };
