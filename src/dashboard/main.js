// The beginning: who is signed in, which pages there are, and one function that draws all of it.
import { render } from "./vendor/lit-html.js";
import { whenSignedOut } from "./core/api.js";
import { ask, current, forget, load } from "./core/session.js";
import * as router from "./core/router.js";
import * as theme from "./core/theme.js";
import { shell } from "./parts/shell.js";
import { signIn, tellWhy } from "./pages/signin.js";

const PAGES = {
  "": () => import("./pages/overview.js"),
  apps: () => import("./pages/apps.js"),
  app: () => import("./pages/app.js"),
  watches: () => import("./pages/watches.js"),
  watch: () => import("./pages/watch.js"),
  letters: () => import("./pages/letters.js"),
  letter: () => import("./pages/letter.js"),
  deliveries: () => import("./pages/deliveries.js"),
  delivery: () => import("./pages/delivery.js"),
  start: () => import("./pages/start.js"),
  ledger: () => import("./pages/ledger.js"),
  subscription: () => import("./pages/subscription.js"),
  queues: () => import("./pages/queues.js"),
  queue: () => import("./pages/queue.js"),
  task: () => import("./pages/task.js"),
  schedules: () => import("./pages/schedules.js"),
  schedule: () => import("./pages/schedule.js"),
  tree: () => import("./pages/tree.js"),
  system: () => import("./pages/system.js"),
  audit: () => import("./pages/audit.js"),
};

const root = document.getElementById("root");
let isSignedIn = false;

function draw() {
  render(isSignedIn ? shell(router.state, leave) : signIn(enter), root);
}

function enter() {
  isSignedIn = true;
  router.open();
}

// Nobody is signed in any more: what was shown goes.
function leave() {
  router.stop();
  forget();
  isSignedIn = false;
  Object.assign(router.state, { page: null, data: null, problem: null, local: {} });
  document.title = "Sign in · Tidings";
  draw();
}

theme.apply();
router.start(PAGES, draw);
// A page of the staff's refuses an app as well: only who is not known any more has to sign in again. Where another
// tab signed somebody else in, the page starts again for that person.
whenSignedOut(async () => {
  const shown = current()?.token_id;
  try {
    const now = await ask();
    if (shown && now.token_id !== shown) location.reload();
  } catch (problem) {
    if (problem.status !== 401 || !isSignedIn) return;
    tellWhy("You are signed out: the session has ended, or its token was revoked.");
    leave();
  }
});
try {
  await load();
  enter();
} catch {
  leave();
}
