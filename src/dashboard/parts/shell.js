// The frame around every page: links, who is signed in, the page's heading, and what it tells.
import { html, nothing } from "../vendor/lit-html.js";
import { current, isStaff, maySee, signOut } from "../core/session.js";
import { link, redraw, titleOf } from "../core/router.js";
import * as theme from "../core/theme.js";
import { clock } from "../core/format.js";
import { ask, tell, toasts } from "./dialog.js";
import { failed, loading } from "./states.js";
import { told } from "./words.js";

let isOpen = false;

export const mark = html`<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="4" cy="12" r="3" fill="currentColor"/>
  <path d="M4 5a7 7 0 0 1 7 7M4 1a11 11 0 0 1 11 11" fill="none" stroke="currentColor" stroke-width="1.8"/></svg>`;

const OF_STAFF = [
  [null, [["", "Overview"], ["apps", "Apps"], ["watches", "Watches"], ["deliveries", "Deliveries"], ["letters", "Dead letters"],
    ["queues", "Queues"], ["schedules", "Schedules"], ["ledger", "Ledger"]]],
  ["Server", [["tree", "Supervision tree"], ["system", "System"], ["audit", "Audit log"]]],
];
const OF_APP = [
  [null, [["app", "App"], ["watches", "Watches"], ["letters", "Dead letters"], ["deliveries", "Deliveries"], ["queues", "Queues"],
    ["schedules", "Schedules"], ["ledger", "Ledger"]]],
];
// Which link a page without one of its own belongs to.
const BELONGS = { app: "apps", watch: "watches", letter: "letters", delivery: "deliveries", subscription: "ledger", queue: "queues", task: "queues",
  schedule: "schedules" };

// The pages that the caller may see.
const groupsOf = () => (isStaff() ? OF_STAFF : OF_APP).map(([name, list]) => [name, list.filter(([page]) => maySee(page))]).filter(([, list]) => list.length);

// The page that a person without an overview begins at; undefined: none may be seen.
export const firstPage = () => groupsOf()[0]?.[1][0][0];

function links(name, closed) {
  const groups = groupsOf();
  const known = groups.flatMap(([, list]) => list.map(([page]) => page));
  const at = known.includes(name) ? name : name === "start" ? (isStaff() ? "apps" : "watches") : BELONGS[name];
  return html`<nav class="links" id="links" aria-label="Pages" @click=${closed}>${groups.map(([heading, list]) => html`<div>
    ${heading ? html`<p class="heading">${heading}</p>` : nothing}
    <ul>${list.map(([page, text]) => html`<li><a href=${link(page)} aria-current=${page === at ? "page" : nothing}>${text}</a></li>`)}</ul>
  </div>`)}</nav>`;
}

function who(leave) {
  const session = current();
  const name = session.kind === "app" ? session.app_name : session.token_id === "admin" ? "The server's own token" : session.token_id;
  const out = async (everywhere) => {
    const question = { title: "Sign out everywhere?", text: "Every browser that was signed in with this token is signed out.", yes: "Sign out everywhere" };
    if (everywhere && !(await ask(question))) return;
    try {
      await signOut(everywhere);
    } catch (problem) {
      if (problem.status !== 401) return tell(`You are still signed in: ${problem.message}`);
    }
    leave();
  };
  const toggled = () => {
    theme.toggle();
    redraw();
  };
  return html`<div class="who"><p><strong>${name}</strong><br><span class="muted">${session.kind === "app" ? "app" : session.role ?? "own permissions"} · Tidings ${session.version}</span></p>
    <div class="row small"><button class="link" type="button" @click=${toggled}>${theme.current() === "dark" ? "Light" : "Dark"} theme</button>
      <button class="link" type="button" @click=${() => out(false)}>Sign out</button>
      <button class="link" type="button" @click=${() => out(true)}>Sign out everywhere</button></div></div>`;
}

export function shell(state, leave) {
  const { page, data, problem } = state;
  const flip = () => {
    isOpen = !isOpen;
    redraw();
  };
  const closed = () => {
    isOpen = false;
  };
  return html`<a class="skip" href="#page" @click=${focusPage}>Skip to the page</a>
    <div class="shell">
      <header class="side ${isOpen ? "open" : ""}">
        <div class="brand">${mark}<a href="/dashboard/">Tidings</a>
          <button class="button menu-button" type="button" aria-expanded=${isOpen} aria-controls="links" @click=${flip}>Menu</button></div>
        ${links(state.name, closed)}${who(leave)}
      </header>
      <main class="page" id="page" tabindex="-1" aria-busy=${state.isLoading}>
        ${stale(state)}
        ${page && data ? page.view(state) : html`${heading(problem && typeof page?.title !== "string" ? "Tidings" : titleOf())}${problem ? nothing : loading()}`}
        ${problem ? failed(problem) : nothing}
      </main>
    </div>
    <div class="toasts" role="status" aria-live="polite">${toasts.map(({ text }) => html`<p class="toast">${text}</p>`)}</div>`;
}

function focusPage(event) {
  event.preventDefault();
  document.getElementById("page").focus();
}

// The server is away: what is shown is old, and says how old.
function stale(state) {
  const text = `The server does not answer. This is how it was at ${clock(state.at)}; the page tries again by itself.`;
  return html`<div role="status" class=${state.isStale ? "banner" : "hidden"}>${state.isStale ? text : nothing}</div>`;
}

// The heading of a page: where it is, its name, what one may do.
export const heading = (title, { crumbs, text, buttons } = {}) => html`<div class="head"><div class="words">
  ${crumbs && crumbs !== nothing ? html`<p class="crumbs">${crumbs}</p>` : nothing}<h1 tabindex="-1">${told(title)}</h1>
  ${text && text !== nothing ? html`<div class="muted">${text}</div>` : nothing}</div>
  ${buttons ? html`<div class="buttons">${buttons}</div>` : nothing}</div>`;

