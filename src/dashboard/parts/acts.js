// What may be done, each with its question where it cannot be taken back at once.
import { html } from "../vendor/lit-html.js";
import { part, patch, post } from "../core/api.js";
import { appItself, mayDo, ofApp } from "../core/session.js";
import { count, plural, words } from "../core/format.js";
import { button } from "./dialog.js";
import { badge, moment } from "./words.js";

const tested = ({ accepted, detail, status, duration_ms: took }) => (accepted
  ? `The endpoint took the test: ${status} in ${took} ms.` : `The endpoint did not take the test: ${detail}`);

export const testButton = (path) => button("Send a test", { work: () => post(path, {}), done: tested });

export const enableButton = (app) => (app.disabled
  ? button("Enable", { tone: "first", work: () => patch(appItself(app.app_id), { disabled: false }), done: "The app is served again." })
  : button("Disable", {
    work: () => patch(appItself(app.app_id), { disabled: true }), done: "Nothing is sent to the app any more.",
    question: { title: `Disable ${app.app_name}?`, text: "Nothing is sent to it until it is enabled again. Nothing is lost: its watches go on from where they stand.", yes: "Disable", isDanger: true },
  }));

export const cancelRedrives = (app) => button("Cancel all redrives", {
  work: () => post(ofApp(app, "dead-letters/redrive/cancel"), {}), done: ({ reopened }) => `Cancelled; ${plural(reopened, "letter is", "letters are")} open again.`,
  question: { title: "Cancel all redrives?", text: "Attempts in flight finish; everything not yet sent goes back to open.", yes: "Cancel them" },
});

const watchAct = (path, verb, done, body = {}) => ({ work: () => post(`${path}/${verb}`, body), done });

// The buttons of a watch that fit its state and what the caller may.
export function watchButtons(app, watch) {
  const path = ofApp(app, `repositories/${part(watch.repository_id)}`);
  const isStuck = watch.state === "paused" || watch.effective_state === "blocked";
  const list = [];
  if (isStuck && mayDo("watches:pause")) list.push(button("Resume", { ...watchAct(path, "resume", "The watch goes on."), tone: "first" }));
  if (watch.effective_state === "blocked" && mayDo("watches:skip")) {
    list.push(button("Skip one change", {
      ...watchAct(path, "skip", "The change at the head became a dead letter."), tone: "danger",
      question: { title: "Give the change at the head up?", text: "It becomes a dead letter, and the next change goes on. It can be sent again later.", yes: "Skip it", isDanger: true },
    }));
  }
  if (mayDo("watches:scan")) list.push(button("Scan now", watchAct(path, "scan", "The Git host is asked soon.")));
  if (mayDo("watches:test")) list.push(testButton(`${path}/test`));
  if (watch.state !== "paused" && mayDo("watches:pause")) {
    list.push(button("Pause", { ...watchAct(path, "pause", "The watch is paused."),
      question: { title: "Pause this watch?", text: "Nothing is sent until it is resumed. It then goes on from where it stands.", yes: "Pause" } }));
  }
  if (!mayDo("watches:resync")) return list;
  list.push(button("Resync", { ...watchAct(path, "resync", "A resync was asked for."),
    question: { title: "Deliver everything again?", text: "The app gets deletes of what is gone and creates of all the rest, for each branch.", yes: "Resync" } }));
  return list;
}

// How far something is, in one bar and its words.
export function progress(done, total, label) {
  const share = total ? Math.min(100, Math.round((100 * done) / total)) : 100;
  return html`<div class="meter" role="progressbar" aria-label=${label} aria-valuenow=${share} aria-valuemin="0" aria-valuemax="100">
    <svg preserveAspectRatio="none" viewBox="0 0 100 1" aria-hidden="true"><rect width=${share} height="1"></rect></svg></div>
    <span class="sub">${count(done)} of ${count(total)}</span>`;
}

export const redriveColumns = [
  { label: "Asked", kind: "tight", cell: (row) => moment(row.created_at) },
  { label: "State", kind: "tight", cell: (row) => badge(row.left ? "warn" : "good", words(row.state)) },
  { label: "Progress", kind: "wide", cell: (row) => progress(row.asked - row.left, row.asked, "Progress of the redrive") },
  { label: "Sent", kind: "num", cell: (row) => count(row.sent) },
  { label: "Refused", kind: "num", cell: (row) => count(row.refused) },
  { label: "Superseded", kind: "num", cell: (row) => count(row.superseded) },
  { label: "Cancelled", kind: "num", cell: (row) => count(row.cancelled) },
];
