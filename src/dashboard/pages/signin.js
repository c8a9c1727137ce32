// The page for those who are not signed in. A token is pasted, sent once, and kept nowhere in the browser.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part } from "../core/api.js";
import { signIn as send } from "../core/session.js";
import { redraw } from "../core/router.js";
import { plural } from "../core/format.js";
import { mark } from "../parts/shell.js";

// What the server says of a sign-in that came back from an issuer.
const RETURNED = {
  unavailable: "The identity provider does not answer. Try again, or use a token.",
  refused: "The identity provider did not confirm this sign-in, or it took longer than 10 minutes. Try again.",
  no_role: "You are known, and you have no role here. Ask an administrator of this server.",
};

function returned(query) {
  const word = query.get("sign_in");
  if (word === "too_many") return tooMany(Number(query.get("seconds")));
  return RETURNED[word] ?? "";
}

const tooMany = (seconds) => `Too many attempts to sign in from your network. Try again in ${plural(seconds || 10, "second")}.`;

let fault = returned(new URLSearchParams(location.search));

// Says on the page why somebody has to sign in.
export function tellWhy(text) {
  fault = text;
}

let isBusy = false;
// The issuers at which people sign in; null until they are asked for.
let issuers = null;

async function loadIssuers() {
  issuers = [];
  issuers = await get("session/issuers").catch(() => []);
  if (issuers.length) redraw();
}

export function signIn(enter) {
  if (!issuers) loadIssuers();
  const submit = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    const field = event.target.elements.token;
    isBusy = true;
    redraw();
    try {
      await send(field.value.trim());
      field.value = "";
      fault = "";
      enter();
    } catch (problem) {
      fault = words(problem);
      field.select();
    } finally {
      isBusy = false;
      redraw();
    }
  };
  return html`<main class="signin" id="page"><div class="brand">${mark}<span>Tidings</span></div>
    <div><h1>Sign in</h1><p class="muted">With the token of an app, or with one of the staff.</p></div>
    ${issuers?.length ? html`<div class="field">${issuers.map(({ name, label }) => html`<a class="button"
      href="/api/session/issuers/${part(name)}">Sign in with ${label}</a>`)}</div>` : nothing}
    <form method="post" @submit=${submit}>
      <div class="field"><label for="token">Token</label>
        <input id="token" name="token" class="mono" type="password" autocomplete="off" required spellcheck="false"
          aria-describedby="token-fault" aria-invalid=${fault ? "true" : nothing}>
        <p class="fault" id="token-fault" role="alert">${fault}</p></div>
      <button class="button first" type="submit" ?disabled=${isBusy}>Sign in</button>
    </form>
    <p class="small muted">The server wrote its own token to the file <code>admin-token</code> in its data directory
      when it started first; its log names the path. A session that begins with a token lasts 8 hours.</p></main>`;
}

// A token that is known, and that no browser can sign in with.
const NO_SESSION = /not for a session/;

function words(problem) {
  if (problem.status === 401) return NO_SESSION.test(problem.message) ? `${problem.message.charAt(0).toUpperCase()}${problem.message.slice(1)}.` : "This token is not known here, has ended, or was revoked.";
  if (problem.status === 429) return tooMany(problem.retryAfter);
  if (problem.isDisconnected) return "The server does not answer.";
  return problem.errors[0] ? `The token ${problem.errors[0].detail}.` : problem.message;
}
