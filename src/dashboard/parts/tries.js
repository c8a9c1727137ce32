// Each try of a delivery: what the receiver answered, in its own words.
import { html, nothing } from "../vendor/lit-html.js";
import { span } from "../core/format.js";
import { badge, moment } from "./words.js";
import { empty } from "./states.js";

const isTaken = (row) => row.http_status >= 200 && row.http_status < 300;

function answer(row) {
  if (!row.answer) return html`<p class="text mono" tabindex="0" role="group" aria-label="Answer to try ${row.number}">${row.excerpt || "Nothing was kept of the answer."}</p>`;
  return html`<p class="text mono" tabindex="0" role="group" aria-label="Answer to try ${row.number}">${row.answer.headers.map(({ name, value }) => `${name}: ${value}\n`).join("")}${row.answer.headers.length ? "\n" : ""}${row.answer.body || row.excerpt || "(no body)"}</p>`;
}

// The newest first and open; those before it open on demand.
export function tries(rows, none) {
  if (!rows.length) return html`<div class="card">${empty("No try is recorded", none)}</div>`;
  const newest = [...rows].sort((one, other) => Date.parse(other.ended_at) - Date.parse(one.ended_at));
  return html`<div class="tries">${newest.map((row, at) => html`<details class="card" ?open=${at === 0}>
    <summary><span class="try">${row.entry ? `Entry ${row.entry}, try ${row.number}` : `Try ${row.number}`}</span>${isTaken(row) ? badge("good", `${row.http_status} taken`) : badge("bad", row.http_status ? `${row.http_status} not taken` : "no answer")}
      <span class="muted">${moment(row.ended_at)}, took ${span(row.took_ms)}</span>
      ${Date.parse(row.next_attempt_at) > Date.now() ? html`<span class="muted">next ${moment(row.next_attempt_at)}</span>` : nothing}</summary>
    ${answer(row)}</details>`)}</div>`;
}
