// Small pieces that many pages show: moments, badges, ids, and what a state means and asks for.
import { html } from "../vendor/lit-html.js";
import { ago, clock, visible, words } from "../core/format.js";

export const moment = (at) => (at ? html`<time class="nowrap" datetime=${at} title=${clock(at)}>${ago(at)}</time>` : "–");

export const badge = (tone, text) => html`<span class="badge ${tone}">${text}</span>`;

// A text of somebody else's hides nothing; what is no text is a part of the page.
export const told = (value) => (typeof value === "string" ? visible(value) : value);

// Explains a label that several tables have.
export const SHARDS = "All repositories are divided into shards; the number says how many of them this server works on";

export const code = (text) => html`<code>${told(text)}</code>`;

// What each effective state of a watch means: its tone, its name, and what to do about it.
const STATES = {
  active: ["good", "in sync", null],
  delivering: ["", "delivering", null],
  pending: ["", "pending", null],
  empty: ["", "empty", "The repository has no commit. The first one is delivered as soon as it is there."],
  unmatched: ["warn", "unmatched", "No ref of the repository matches the pattern. Check its spelling, or push such a ref."],
  branch_missing: ["warn", "branch missing", "Push the branch again, or watch another one."],
  paused: ["warn", "paused", "Resume the watch to go on from where it stands. Nothing is lost meanwhile."],
  in_grace: ["warn", "in grace", "The receiver refuses the first deliveries. Check its address and the key that it verifies with; then send a test."],
  retrying: ["warn", "retrying", "The receiver failed on the change at the head. It is tried again by itself; look at the delivery for its answer."],
  app_disabled: ["bad", "app disabled", "Nothing is sent to this app. Enable it once its endpoint is back."],
  sink_disabled: ["bad", "sink disabled", "The sink of this watch answered 410, so nothing is sent to it. Resume the watch once the sink is back."],
  blocked: ["bad", "blocked", "Repair the cause named above. Then send a test or resume; skipping makes a dead letter of the change at the head."],
  credential_refused: ["bad", "credential refused", "The Git host does not take the token of the repository any more. Replace the token, here or with tidings repository token."],
  source_failing: ["bad", "source failing", "The repository cannot be read. Check its address and its host; a scan by hand asks at once."],
  endpoint_failing: ["bad", "endpoint failing", "The receiver does not answer. Delivery goes on by itself with the first probe that it takes."],
};

export const toneOf = (state) => STATES[state]?.[0] ?? "";
const stateName = (state) => STATES[state]?.[1] ?? words(state);
// What differs where the changes of a watch become tasks.
const ADVICE_OF_TASKS = {
  blocked: "Repair the workers. One task at a time is tried; its first success goes on with the others and redrives those dead letters by itself. A task that can never succeed is cancelled on its page.",
};
export const adviceOf = (state, isOfTasks = false) => (isOfTasks && ADVICE_OF_TASKS[state]) || (STATES[state]?.[2] ?? null);
export const stateBadge = (state) => badge(toneOf(state), stateName(state));

const LETTERS = { open: "bad", redrive_requested: "warn", redriven: "good", superseded: "", dismissed: "" };
export const letterBadge = (status) => badge(LETTERS[status] ?? "", words(status));

const CHANGES = { delivered: "good", settled: "good", parked: "bad", failed: "warn", pending: "", dropped: "" };
export const changeBadge = (state) => badge(CHANGES[state] ?? "", words(state));

// What a change does to its file: the API has words of events, and words of operations.
const OPERATIONS = { create: "created", update: "updated", delete: "deleted", round: "whole round" };
export const changeWords = (name) => words(OPERATIONS[name] ?? (name ?? "").replace("file.", ""));

const REASONS = {
  rejected: "the receiver refused it",
  failing: "the receiver failed on it until its tries were used up",
  content_unavailable: "its content was not available",
  skipped: "it was skipped by hand",
};
// The same for a change that was a task.
const REASONS_OF_TASKS = {
  rejected: "its worker failed it for good",
  failing: "its task used up its attempts",
  content_unavailable: "its content was not available",
  skipped: "its task was cancelled",
};
export const reasonOf = (reason, isTask = false) => (isTask ? REASONS_OF_TASKS : REASONS)[reason] ?? words(reason);

// Whether the changes of a watch become tasks.
export const fillsQueue = (watch) => watch?.sink?.kind === "tasks";

// The status code that a delivery was answered with. That of an acknowledgement is not stored unless the app asks
// for it.
export const statusOf = ({ last_status: status, state }) => status ?? (state === "delivered" ? "accepted" : "–");

// What a person reads of the answer to a try.
export function answerOf({ http_status: status, excerpt }) {
  if (status) return excerpt ? html`<strong>${status}</strong> ${excerpt}` : html`<strong>${status}</strong>`;
  return excerpt || "no answer";
}

export const pairs = (list) => html`<dl class="pairs">${list.filter(Boolean).map(([name, value]) => (
  html`<dt>${name}</dt><dd>${told(value) ?? "–"}</dd>`))}</dl>`;
