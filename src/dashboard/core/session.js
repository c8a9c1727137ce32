// Who is signed in, and what that allows. The server decides; these answers only keep buttons away that it
// would refuse.
import { get, part, post, remove } from "./api.js";

let session = null;

export const current = () => session;

export async function load() {
  session = await get("session");
  return session;
}

export async function signIn(token) {
  session = await post("session", { token });
  return session;
}

export async function signOut(everywhere) {
  await remove(everywhere ? "sessions" : "session");
  session = null;
}

export function forget() {
  session = null;
}

export const isStaff = () => session?.kind === "staff";

// Whether the caller has a permission (docs/permissions.md).
export const mayDo = (permission) => Boolean(session?.permissions.includes(permission));

// The app that a page is about: an app sees itself, whatever the address says.
export const appOf = (query) => (session?.kind === "app" ? session.app_id : query.app);

// Where the things of an app lie: for the app itself, or for the staff.
export const ofApp = (app, rest) => (session?.kind === "app" ? rest : `admin/apps/${part(app)}/${rest}`);

// The app itself.
export const appItself = (app) => (session?.kind === "app" ? "app" : `admin/apps/${part(app)}`);
