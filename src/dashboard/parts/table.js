// Tables, their filter and their pages. On narrow screens each row becomes a card; the roles stay.
import { html, nothing } from "../vendor/lit-html.js";
import { here, state } from "../core/router.js";
import { empty } from "./states.js";

const isBlank = (content) => content === "" || content === nothing;

// `columns`: `{ label, cell(row), kind, title }`, `kind`: `num`, `tight`, `wide`, `named`, `check` or nothing; `title`
// explains a label. A column of acts has no label.
export function table({ caption, columns, rows, none, isFresh }) {
  if (state.problem) return nothing;
  if (!rows.length) return html`<div class="card">${none ?? empty("Nothing here", null)}</div>`;
  const shown = columns.filter(({ label, cell }) => label || rows.some((row) => !isBlank(cell(row))));
  const head = ({ label, kind, head, title }) => html`<th scope="col" role="columnheader" class=${kind ?? ""} title=${title ?? nothing}>${head ?? label}</th>`;
  const line = (row) => html`<tr role="row" class=${isFresh?.(row) ? "fresh" : ""}>${shown.map(({ label, kind, cell }) => (
    html`<td role="cell" class=${kind ?? ""} data-label=${label}><div>${cell(row)}</div></td>`))}</tr>`;
  return html`<div class="card rows"><table class="table" role="table">
    <caption class="hidden">${caption}</caption>
    <thead role="rowgroup"><tr role="row">${shown.map(head)}</tr></thead>
    <tbody role="rowgroup">${rows.map(line)}</tbody></table></div>`;
}

// The links to other pages of a list. The server pages forward; back is what the browser does.
export function pager(page) {
  const isLater = Boolean(state.query.cursor);
  if (state.problem || (!page?.next_cursor && !isLater)) return nothing;
  return html`<nav class="pager" aria-label="Pages of the list">
    ${isLater ? html`<a class="button" href=${here({ cursor: undefined })}>First page</a>` : nothing}
    ${page.next_cursor ? html`<a class="button" href=${here({ cursor: page.next_cursor })}>Next page</a>` : nothing}</nav>`;
}

// The line above a table: a filter in the language of `q`, and choices.
// Without a `placeholder` there are choices alone.
export function filterBar({ placeholder, choices = [], label = "Filter" }) {
  const { query } = state;
  return html`<form class="bar" method="get" role="search" aria-label=${label}>
    ${placeholder ? html`<div class="field grow"><label for="q">${label}</label>
      <input id="q" name="q" class="mono" type="search" autocomplete="off" spellcheck="false" .value=${query.q ?? ""}
        placeholder=${placeholder}></div>` : nothing}
    ${choices.map(({ name, label: title, options }) => html`<div class="field"><label for="choice-${name}">${title}</label>
      <select id="choice-${name}" name=${name} @change=${(event) => event.target.form.requestSubmit()}>
        ${options.map(([value, text]) => html`<option value=${value} .selected=${(query[name] ?? "") === value}>${text}</option>`)}
      </select></div>`)}
    <button class="button" type="submit">Apply</button></form>`;
}

export const section = (title, content, more) => html`<section class="section" aria-label=${title}>
  <header><h2>${title}</h2>${more ? html`<span class="more">${more}</span>` : nothing}</header>${content}</section>`;

export const tabs = (label, list, current) => html`<nav class="tabs" aria-label=${label}>${list.map(([name, text]) => html`
  <a href=${here({ tab: name || undefined, cursor: undefined, q: undefined })} aria-current=${name === current ? "page" : nothing}>${text}</a>`)}</nav>`;
