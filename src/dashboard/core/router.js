// Which page is shown, and with what. The address holds all of a page's state, so that a link or a reload
// shows the same. A page is a module with `load` and `view`; this keeps its data fresh.
import { nothing } from "../vendor/lit-html.js";
import { get, Problem } from "./api.js";
import { maySee } from "./session.js";

const BASE = "/dashboard/";
const REFRESH_MS = 5000;
const RETRY_MS = 2000;
const RETRY_MAX_MS = 15000;

const empty = () => ({ name: "", query: {}, page: null, data: null, problem: null, isLoading: true, isStale: false,
  at: 0, local: {} });

export const state = empty();

let render = () => {};
let pages = {};
let timer = 0;
let failures = 0;
let asking = null;
let stopLive = null;
let turn = 0;

// The address of a page.
export function addressOf(name, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(pairs).toString();
  return BASE + name + (search ? `?${search}` : "");
}

// The same as the `href` of a link. To a page that the caller may not see there is none: the link is plain text.
export const link = (name, query) => (maySee(name) ? addressOf(name, query) : nothing);

// The same page with another query; what is undefined goes.
export const here = (changes) => addressOf(state.name, { ...state.query, ...changes });

export function go(href, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", href);
  else {
    // Back leads to where the person was on the page.
    history.replaceState({ y: scrollY }, "");
    history.pushState(null, "", href);
  }
  return open();
}

export function start(known, draw) {
  pages = known;
  render = draw;
  history.scrollRestoration = "manual";
  addEventListener("popstate", async (event) => {
    await open();
    scrollTo(0, event.state?.y ?? 0);
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && state.page) refresh();
  });
  document.addEventListener("click", clicked);
  document.addEventListener("submit", submitted);
}

function clicked(event) {
  const anchor = event.target.closest?.("a[href]");
  if (!anchor || event.defaultPrevented || event.button !== 0 || anchor.target) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (anchor.origin !== location.origin || !anchor.pathname.startsWith(BASE)) return;
  event.preventDefault();
  go(anchor.href);
}

// A form that asks for another view of the page: its fields become the query.
function submitted(event) {
  const form = event.target;
  if (form.method !== "get" || event.defaultPrevented) return;
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(form));
  go(here({ cursor: undefined, ...fields }));
}

export function stop() {
  clearTimeout(timer);
  asking?.abort();
  stopLive?.();
  stopLive = null;
  turn += 1;
}

export async function open() {
  stop();
  const mine = turn;
  const name = location.pathname.slice(BASE.length);
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const isSamePage = state.name === name && state.page;
  // Another page of a list begins at its top, as another page does.
  const isFurther = isSamePage && state.query.cursor !== query.cursor;
  const fresh = { ...empty(), name, query, local: {} };
  // Another view of the same page keeps what is there until the new rows come.
  if (isSamePage) Object.assign(fresh, { page: state.page, data: state.data, isLoading: true });
  Object.assign(state, fresh);
  failures = 0;
  render();
  const load = pages[name];
  if (!load) {
    state.problem = new Problem(404, { title: "There is no such page." });
    state.isLoading = false;
    return render();
  }
  try {
    const page = (await load()).default;
    if (mine !== turn) return;
    state.page = page;
  } catch {
    state.problem = new Problem(0, { title: "The page could not be loaded." });
    state.isLoading = false;
    timer = setTimeout(reload, RETRY_MS);
    return render();
  }
  await refresh();
  if (mine !== turn) return;
  document.title = `${titleOf()} · Tidings`;
  if (!isSamePage || isFurther) scrollTo(0, 0);
  if (!isSamePage || isFurther || isNowhere()) document.querySelector("h1")?.focus({ preventScroll: true });
}

// Whether the keyboard is at nothing: what had the focus is gone.
export const isNowhere = () => !document.activeElement || document.activeElement === document.body;

// A browser may remember that a module could not be loaded: the whole page is loaded again, once the server is
// there.
async function reload() {
  const mine = turn;
  const isThere = await get("session").then(() => true, (problem) => !problem.isDisconnected);
  if (mine !== turn) return;
  if (isThere) location.reload();
  else timer = setTimeout(reload, RETRY_MS);
}

export function titleOf() {
  const { page, data } = state;
  if (!page) return "Tidings";
  return typeof page.title === "function" ? (data ? page.title(data, state.query) : state.problem ? "Not shown" : "Loading") : page.title;
}

// Asks for the page's data again; what was shown stays until the answer is there.
export async function refresh() {
  clearTimeout(timer);
  asking?.abort();
  const mine = turn;
  const { page, query } = state;
  if (!page) return reload();
  asking = new AbortController();
  try {
    const data = page.load ? await page.load(query, asking.signal, state) : {};
    if (mine !== turn) return;
    Object.assign(state, { data, problem: null, isLoading: false, isStale: false, at: Date.now() });
    failures = 0;
    // Also after a first answer that came late: what is live begins with the first that is there.
    if (page.live && !stopLive) stopLive = page.live(state, render) ?? (() => {});
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    failures += 1;
    if (!(error instanceof Problem)) console.error(error);
    const problem = error instanceof Problem ? error : new Problem(500, { title: "This page has a defect." });
    const keeps = state.data && (problem.isDisconnected || problem.status === 429);
    if (keeps) Object.assign(state, { isStale: true, isLoading: false });
    // Rows that answered another question are no answer to this one. A list keeps its filter, to be corrected.
    else Object.assign(state, { problem, isLoading: false, data: page.blank ?? null });
  }
  render();
  document.title = `${titleOf()} · Tidings`;
  const every = (typeof page.refreshMs === "function" ? page.refreshMs(state) : page.refreshMs) ?? REFRESH_MS;
  const wait = failures ? Math.min(1000 * 2 ** (failures - 1), RETRY_MAX_MS) : every;
  const isWorthIt = !state.problem || state.problem.isDisconnected;
  if (wait && isWorthIt && !document.hidden) timer = setTimeout(refresh, wait);
}

export const redraw = () => render();
