// Who is signed in, and what that allows. The server decides; these answers only keep buttons away that it
// would refuse.
import { get, part, post, Problem, remove, speakFor } from "./api.js";

let session = null;

export const current = () => session;

function begin(shown) {
  session = shown;
  speakFor(shown?.token_id);
  return shown;
}

// Who is signed in now, which may be another person than the page shows.
export const ask = () => get("session");

export const load = async () => begin(await ask());

export const signIn = async (token) => begin(await post("session", { token }));

export const signOut = (everywhere) => remove(everywhere ? "sessions" : "session");

export const forget = () => begin(null);

export const isStaff = () => session?.kind === "staff";

// Whether the caller has a permission (docs/permissions.md).
export const mayDo = (permission) => Boolean(session?.permissions.includes(permission));

// The permission that each page needs, or those of its parts: one of them is enough. A page that is not named is for
// everybody.
const NEEDS = {
  "": "system:read", apps: "apps:read", app: "apps:read", watches: "watches:read", watch: "watches:read",
  deliveries: "deliveries:read", delivery: "deliveries:read", letters: "dead-letters:read", letter: "dead-letters:read",
  queues: "queues:read", queue: "queues:read", task: "tasks:read", schedules: "schedules:read", schedule: "schedules:read",
  ledger: "ledger:read", subscription: "subscriptions:read", tree: "system:read", audit: "audit:read",
  system: ["breakers:read", "sources:read", "receipts:read", "system:read", "settings:read", "keys:list", "staff-tokens:list"],
};
// Lists over all apps that a token of the staff for some commands may not ask for.
const OF_ALL_COMMANDS = ["queues", "schedules"];

// Whether the caller may see a page.
export function maySee(page) {
  if (isStaff() && session.commands && OF_ALL_COMMANDS.includes(page)) return false;
  const needs = NEEDS[page];
  return needs === undefined || [needs].flat().some(mayDo);
}

// The app that a page is about: an app sees itself, whatever the address says.
export const appOf = (query) => (session?.kind === "app" ? session.app_id : query.app);

// Where the things of an app lie: for the app itself, or for the staff.
export const ofApp = (app, rest) => (session?.kind === "app" ? rest : `admin/apps/${part(named(app))}/${rest}`);

// For the staff an address names the app: a link that an app passed on does not.
function named(app) {
  if (app) return app;
  throw new Problem(404, { title: "Not found", detail: "This link is an app's own. For the staff it needs the app as well: add &app=app_... to the address, or look the thing up in its list." });
}

// The app itself, as far as the caller may see it: a narrowed token may read letters alone.
export const appSeen = (app, signal) => (mayDo("apps:read") ? get(appItself(app), {}, signal)
  : { app_id: session.app_id ?? app, app_name: session.app_name ?? app });

// The app itself.
export const appItself = (app) => (session?.kind === "app" ? "app" : `admin/apps/${part(named(app))}`);
