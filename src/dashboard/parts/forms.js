// Fields of forms that make something: each with its label, a hint, and what the server said is wrong with it.
import { html, nothing } from "../vendor/lit-html.js";
import { capital } from "../core/format.js";

export const fault = (text, id) => (text ? html`<p class="fault" role="alert" id=${id ?? nothing}>${text}</p>` : nothing);

// What a problem says of each field, by its name; under "" what is of none.
export function faultsOf(problem) {
  const faults = {};
  for (const { pointer, detail } of problem.errors ?? []) {
    const [, name, inner] = pointer.split("/");
    faults[name] = capital(detail);
    if (inner) faults[`${name}/${inner}`] = faults[name];
  }
  if (!Object.keys(faults).length) faults[""] = problem.message;
  return faults;
}

// A text of a form; undefined where nothing was written.
export const textOf = (fields, name) => (fields.get(name) ?? "").toString().trim() || undefined;

export const linesOf = (text) => (text ?? "").split("\n").map((line) => line.trim()).filter(Boolean);

export function field({ name, label, type = "text", faults = {}, hint, required, isMono, isLong, rows, value, changed }) {
  const id = `field-${name}`;
  const wrong = faults[name];
  const described = [hint && `${id}-hint`, wrong && `${id}-fault`].filter(Boolean).join(" ") || nothing;
  const look = `${isMono ? "mono" : ""}`;
  const input = isLong
    ? html`<textarea id=${id} name=${name} class=${look} rows=${rows ?? 3} spellcheck="false" autocomplete="off" aria-describedby=${described}
        aria-invalid=${wrong ? "true" : nothing} .value=${value ?? ""} @input=${changed ?? nothing}></textarea>`
    : html`<input id=${id} name=${name} type=${type} class=${look} spellcheck="false" autocomplete="off" ?required=${required} value=${value ?? nothing}
        aria-describedby=${described} aria-invalid=${wrong ? "true" : nothing} @input=${changed ?? nothing}>`;
  return html`<div class="field"><label for=${id}>${label}</label>${input}
    ${hint ? html`<p class="hint" id="${id}-hint">${hint}</p>` : nothing}${fault(wrong, `${id}-fault`)}</div>`;
}

// One of a few, each with a line of what it means.
export const choice = ({ name, label, options, value, changed }) => html`<fieldset class="choice"><legend class="label">${label}</legend>
  ${options.map(([word, text, hint]) => html`<label class="option"><input type="radio" name=${name} value=${word} ?checked=${word === value}
    .checked=${word === value} @change=${() => changed(word)}><span><strong>${text}</strong>${hint ? html`<span class="sub">${hint}</span>` : nothing}</span></label>`)}</fieldset>`;
