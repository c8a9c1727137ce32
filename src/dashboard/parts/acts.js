// What may be done, each with its question where it cannot be taken back at once.
import { html } from "../vendor/lit-html.js";
import { get, part, patch, post } from "../core/api.js";
import { appItself, mayDo, ofApp } from "../core/session.js";
import { count, plural, ref, words } from "../core/format.js";
import { button } from "./dialog.js";
import { badge, fillsQueue, moment } from "./words.js";

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
  work: () => post(ofApp(app, "dead-letters/redrive/cancel"), {}), done: ({ reopened }) => `Cancelled; ${plural(reopened, "dead letter is", "dead letters are")} open again.`,
  question: { title: "Cancel all redrives?", text: "Attempts in flight finish; everything not yet sent goes back to open.", yes: "Cancel them" },
});

// The server reads the repository with the new token before it takes the place of the other one.
const credentialButton = (path) => button("Replace the token", {
  work: ({ token }) => patch(`${path}/token`, { token: token.trim() }), done: "The repository is read with the new token.",
  question: { title: "Replace the token?", text: "The repository is read with the new token first. If its Git host refuses the new token, nothing changes.", yes: "Replace it",
    fields: html`<div class="field"><label for="git-token">New token</label>
      <input id="git-token" name="token" class="mono" type="password" required autocomplete="off" spellcheck="false"></div>` },
});

const watchAct = (path, verb, done, body = {}) => ({ work: () => post(`${path}/${verb}`, body), done });

// The changes at the heads of blocked branches, each with its path where the caller may see it.
async function headsOf(app, { repository_id: id, branches }) {
  const { items } = mayDo("deliveries:read") ? await get(ofApp(app, "deliveries"), { repository_id: id, status: "failed", limit: 100 }) : { items: [] };
  const stuck = branches.filter(({ state, round }) => state === "blocked" && round);
  return stuck.map(({ cursor, branch, round: { round, position } }) => {
    const change = items.find((row) => row.cursor === cursor && row.round === round && row.position === position);
    return { branch, path: change?.path, head: JSON.stringify({ cursor, round, position }) };
  });
}

const headWords = ({ branch, path }) => `${path ?? "the change"} on ${ref(branch)}`;

// Asks about one change by its name. The server refuses where the branch has moved on meanwhile.
function skipping(heads) {
  if (!heads.length) throw new Error("no change is at the head of a blocked branch any more.");
  const one = heads.length === 1;
  return { title: one ? `Skip ${headWords(heads[0])}?` : "Which change is to be skipped?", yes: "Skip it", isDanger: true,
    text: "It becomes a dead letter, and the next change goes on. It can be redriven later.",
    fields: one ? html`<input type="hidden" name="head" value=${heads[0].head}>`
      : html`<div class="field"><label for="skip-head">Change</label><select id="skip-head" name="head">${heads.map((row) => html`<option value=${row.head}>${headWords(row)}</option>`)}</select></div>` };
}

// The buttons of a watch that fit its state and what the caller may.
export function watchButtons(app, watch) {
  const path = ofApp(app, `repositories/${part(watch.repository_id)}`);
  // A block by dead tasks ends with the first success, and nothing is sent to a queue.
  const isOfTasks = fillsQueue(watch);
  // To resume a watch enables its own sink as well.
  const isStuck = watch.state === "paused" || watch.effective_state === "sink_disabled" || (watch.effective_state === "blocked" && !isOfTasks);
  const list = [];
  if (isStuck && mayDo("watches:pause")) list.push(button("Resume", { ...watchAct(path, "resume", "The watch goes on."), tone: "first" }));
  if (watch.effective_state === "blocked" && !isOfTasks && mayDo("watches:skip")) {
    list.push(button("Skip one change", {
      work: ({ head }) => post(`${path}/skip`, JSON.parse(head)), done: "The change at the head became a dead letter.", tone: "danger",
      question: async () => skipping(await headsOf(app, watch)),
    }));
  }
  if (mayDo("watches:credential") && (watch.has_token || watch.effective_state === "credential_refused")) list.push(credentialButton(path));
  if (mayDo("watches:scan")) list.push(button("Scan now", watchAct(path, "scan", "The Git host is asked soon.")));
  if (mayDo("watches:test") && !isOfTasks) list.push(testButton(`${path}/test`));
  if (watch.state !== "paused" && mayDo("watches:pause")) {
    list.push(button("Pause", { ...watchAct(path, "pause", "The watch is paused."),
      question: { title: "Pause this watch?", text: isOfTasks ? "Its tasks are set aside until it is resumed. Workers may end those that they have."
        : "Nothing is sent until it is resumed. It then goes on from where it stands.", yes: "Pause" } }));
  }
  if (!mayDo("watches:resync")) return list;
  list.push(button("Resync", { ...watchAct(path, "resync", "A resync was asked for."),
    question: { title: "Deliver everything again?", text: `The app gets deletes of what is gone and creates of all the rest, for each branch.${watch.state === "paused" ? " The watch stays paused: the resync begins when it is resumed." : ""}`, yes: "Resync" } }));
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
