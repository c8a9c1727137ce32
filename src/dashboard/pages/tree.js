// The supervision tree as it runs: what each actor does, how often it was restarted, what waits in its mailbox.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { here } from "../core/router.js";
import { count, plural } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { filterBar } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { badge } from "../parts/words.js";

const REFRESH_MS = 2000;
// Actors of one supervisor that are shown at once; a server may have 100,000.
const SHOWN_MAX = 50;

const load = (query, signal) => get("admin/tree", {}, signal);

function sizeOf(node) {
  return node.children.reduce((sum, child) => sum + sizeOf(child), 1);
}

const restarts = (node) => node.restarts + node.children.reduce((sum, child) => sum + restarts(child), 0);

// A node with those of its children that a text names; null: none does.
function meant(node, text) {
  if (!text || `${node.actor} ${node.state}`.toLowerCase().includes(text)) return node;
  const children = node.children.map((child) => meant(child, text)).filter(Boolean);
  return children.length ? { ...node, children } : null;
}

const isBad = (state) => /down|contained|failed|waiting|open/.test(state);

function line(node, depth) {
  const [role, ...key] = node.actor.split(" ");
  // What was restarted comes first, so that it is among those that are shown.
  const children = [...node.children].sort((one, other) => other.restarts - one.restarts);
  const more = children.length - SHOWN_MAX;
  return html`<li><div class="node"><span class="name">${role}</span>${key.length ? html`<code>${key.join(" ")}</code>` : nothing}
      ${badge(isBad(node.state) ? "bad" : "", node.state)}
      ${node.restarts ? badge("warn", plural(node.restarts, "restart")) : nothing}
      ${node.mailbox ? html`<span class="muted">${plural(node.mailbox, "message")} waiting</span>` : nothing}
      ${depth && children.length ? html`<span class="muted">${plural(children.length, "child", "children")}</span>` : nothing}</div>
    ${children.length ? html`<ul class="tree">${children.slice(0, SHOWN_MAX).map((child) => line(child, depth + 1))}
      ${more > 0 ? html`<li class="muted">and ${count(more)} more: filter by name to see them</li>` : nothing}</ul>` : nothing}</li>`;
}

function view({ data, query }) {
  const root = meant(data, query.q?.toLowerCase());
  const total = restarts(data);
  return html`${heading("Supervision tree", { text: `${plural(sizeOf(data), "actor")}, ${total ? plural(total, "restart") : "none was restarted"} since this server started.` })}
    ${filterBar({ placeholder: "deliverer, app_…, contained" })}
    <div class="card padded">${root ? html`<ul class="tree" aria-label="Supervision tree">${line(root, 0)}</ul>`
      : empty("No actor matches", html`<a href=${here({ q: undefined })}>Show the whole tree</a>`)}</div>`;
}

export default { title: "Supervision tree", load, view, refreshMs: REFRESH_MS };
