// Questions before something is changed, and what came of it. One dialog at a time; the answer to an act is
// read out by screen readers.
import { html, nothing, render } from "../vendor/lit-html.js";
import { isNowhere, redraw, refresh, state } from "../core/router.js";

const TOAST_MS = 6000;
const TOASTS_MAX = 3;

export const toasts = [];
let next = 1;

export function tell(text) {
  const toast = { id: next++, text };
  toasts.push(toast);
  toasts.splice(0, Math.max(0, toasts.length - TOASTS_MAX));
  redraw();
  setTimeout(() => {
    const at = toasts.indexOf(toast);
    if (at >= 0) toasts.splice(at, 1);
    redraw();
  }, TOAST_MS);
}

// Asks. Resolves to the fields of the form, or to null where the person changed their mind.
export function ask({ title, text, fields, yes, no = "Cancel", isDanger }) {
  const before = document.activeElement;
  const host = document.body.appendChild(document.createElement("div"));
  return new Promise((resolve) => {
    const close = (answer) => {
      host.remove();
      before?.focus?.({ preventScroll: true });
      resolve(answer);
    };
    const send = (event) => {
      event.preventDefault();
      const answer = Object.fromEntries(new FormData(event.target));
      dialog.close();
      close(answer);
    };
    render(html`<dialog aria-labelledby="dialog-title" @cancel=${() => close(null)}>
      <form method="dialog" @submit=${send}>
        <h2 id="dialog-title">${title}</h2>
        ${text ? html`<p>${text}</p>` : nothing}${fields ?? nothing}
        <div class="buttons">
          <button class="button" type="button" @click=${() => { dialog.close(); close(null); }}>${no}</button>
          <button class="button ${isDanger ? "danger" : "first"}" type="submit">${yes}</button>
        </div>
      </form></dialog>`, host);
    const dialog = host.querySelector("dialog");
    dialog.showModal();
  });
}

let busy = 0;
export const isBusy = () => busy > 0;

// Does something that changes the server, tells what came of it, and shows the page again.
export async function act(work, done) {
  busy += 1;
  redraw();
  try {
    const answer = await work();
    tell(typeof done === "function" ? done(answer) : done);
  } catch (problem) {
    tell(`It did not work: ${problem.message}`);
  } finally {
    busy -= 1;
  }
  // An act may have led to another page, which loads itself.
  if (state.page) await refresh();
}

// A button that asks first, where `question` is given: an object, or a function that finds it out. `of`: what tells it
// from the same button in other rows, for those who do not see the row.
export function button(label, { work, done, question, tone = "", of }) {
  const clicked = async ({ currentTarget: pressed }) => {
    let asked = question;
    if (typeof question === "function") {
      try {
        asked = await question();
      } catch (problem) {
        return tell(`It did not work: ${problem.message}`);
      }
    }
    const fields = asked ? await ask(asked) : {};
    if (!fields) return;
    await act(() => work(fields), done);
    // A button that cannot be pressed for a moment loses the focus; an act may take its button away.
    if (!isNowhere()) return;
    pressed.focus({ preventScroll: true });
    if (isNowhere()) document.querySelector("h1")?.focus({ preventScroll: true });
  };
  return html`<button class="button ${tone}" type="button" aria-label=${of ? `${label} ${of}` : nothing} ?disabled=${isBusy()} @click=${clicked}>${label}</button>`;
}
