// Subscriptions in a table.
import { html, nothing } from "../vendor/lit-html.js";
import { count, words } from "../core/format.js";
import { badge, code } from "./words.js";

const TONES = { active: "good", paused: "warn", blocked: "bad", expired: "", disabled: "bad" };

export const subscriptionBadge = (state) => badge(TONES[state] ?? "", words(state));

// A sink that sends mails has recipients in place of an address.
export const goesTo = ({ url, to }) => url ?? (to ?? []).join(", ");

export const subscriptionColumns = (hrefOf) => [
  { label: "Name", cell: (row) => html`<a href=${hrefOf(row)}>${row.name}</a>` },
  { label: "Filter", kind: "wide", cell: (row) => (row.filter ? code(row.filter) : "everything") },
  { label: "Goes to", kind: "wide", cell: (row) => goesTo(row.sink) },
  { label: "State", cell: (row) => html`${subscriptionBadge(row.state)}${row.reason ? html`<span class="sub">${row.reason}</span>` : nothing}` },
  { label: "Position", kind: "num", cell: (row) => `${count(row.position)} of ${count(row.last)}` },
];
