// What stands where rows are not: loading, empty, an error, something that may not be seen.
import { html, nothing } from "../vendor/lit-html.js";
import { refresh } from "../core/router.js";

export const loading = () => html`<div class="state" role="status">Loading …</div>`;

export const empty = (title, text, act) => html`<div class="state"><strong>${title}</strong>
  ${text ? html`<p>${text}</p>` : nothing}${act ?? nothing}</div>`;

export function failed(problem) {
  const again = html`<button class="button" type="button" @click=${refresh}>Try again</button>`;
  const at = (title, text, act) => html`<div class="card state" role="alert"><strong>${title}</strong><p>${text}</p>${act}</div>`;
  if (problem.status === 401) return at("You may not see this", "This page is for the staff of this server.", nothing);
  if (problem.status === 403) return at("You may not see this", problem.message, nothing);
  if (problem.status === 404) return at("Not found", problem.message, html`<a href="/dashboard/">To the overview</a>`);
  if (problem.isDisconnected) {
    return at("The server does not answer", "It may be restarting. This page tries again by itself.", again);
  }
  if (problem.status === 429) return at("Too many requests", problem.message, again);
  // The same question would be refused again: it has to be corrected first.
  if (problem.status === 400) {
    const fault = problem.message.replace(/^q, column/, "Column");
    return at(fault === problem.message ? "The server cannot read this" : "This filter cannot be read", fault, nothing);
  }
  const faults = problem.errors.map(({ pointer, detail }) => `${pointer.slice(1)} ${detail}`).join("; ");
  return at(problem.title || "It did not work", faults || problem.message, again);
}
