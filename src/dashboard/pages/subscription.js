// One subscription: where it stands, each try with the answer, and what may be done.
import { html, nothing } from "../vendor/lit-html.js";
import { get, part, post, remove } from "../core/api.js";
import { appSeen, appOf, isStaff, mayDo, ofApp } from "../core/session.js";
import { addressOf, go, link } from "../core/router.js";
import { count } from "../core/format.js";
import { heading } from "../parts/shell.js";
import { pager, section } from "../parts/table.js";
import { button } from "../parts/dialog.js";
import { code, moment, pairs } from "../parts/words.js";
import { goesTo, subscriptionBadge } from "../parts/subscriptions.js";
import { testButton } from "../parts/acts.js";
import { tries } from "../parts/tries.js";

const pathOf = (query) => ofApp(appOf(query), `subscriptions/${part(query.id ?? "")}`);

async function load(query, signal) {
  const path = pathOf(query);
  const [one, attempts, app] = await Promise.all([get(path, {}, signal), get(`${path}/attempts`, { limit: 20, cursor: query.cursor }, signal), appSeen(appOf(query), signal)]);
  return { one, attempts, app };
}

function buttons(path, one, staff) {
  const away = async () => {
    await remove(path);
    go(addressOf("ledger", { app: staff }), { replace: true });
  };
  const pause = () => (one.state === "active" ? button("Pause", { work: () => post(`${path}/pause`, {}), done: "Nothing is sent until it is resumed." })
    : button("Resume", { tone: "first", work: () => post(`${path}/resume`, {}), done: "It goes on." }));
  return html`${mayDo("subscriptions:pause") ? pause() : nothing}${mayDo("subscriptions:test") ? testButton(`${path}/test`) : nothing}
    ${mayDo("subscriptions:remove") ? button("Remove", { tone: "danger", work: away, done: "The subscription is removed.",
      question: { title: `Remove ${one.name}?`, text: "Its position and its tries are forgotten. This cannot be taken back.", yes: "Remove", isDanger: true } }) : nothing}`;
}

function view({ data, query }) {
  const { one, attempts, app } = data;
  const staff = isStaff() ? app.app_id : undefined;
  const crumbs = html`<a href=${link("app", { app: staff })}>${app.app_name}</a> / <a href=${link("ledger", { app: staff })}>Ledger</a> /`;
  const { endpoint } = one.sink;
  return html`${heading(one.name, { crumbs, text: subscriptionBadge(one.state), buttons: buttons(pathOf(query), one, staff) })}
    <div class="sections">
      ${section("Where it stands", html`<div class="card padded">${pairs([
        ["Position", `entry ${count(one.position)} of ${count(one.last)}`], one.reason && ["Reason", one.reason],
        ["Tries of the next entry", count(one.tries)], one.next_attempt_at && ["Next try", moment(one.next_attempt_at)],
        ["Filter", one.filter ? code(one.filter) : "everything"], ["Goes to", html`<span class="mono">${goesTo(one.sink)}</span>`],
        one.callback && ["Created by", "the webhook of tasks"],
        one.sink.format && ["Format", one.sink.format], one.next_mail_at && ["Next mail", moment(one.next_mail_at)], endpoint?.last_error && ["Last fault", endpoint.last_error],
        ["Ends", one.expires_at ? moment(one.expires_at) : "never"], ["Created", moment(one.created_at)]])}</div>`)}
      ${section("Tries", html`${tries(attempts.items, "Nothing was sent yet.")}${pager(attempts)}`)}
    </div>`;
}

export default { title: (data) => data.one.name, load, view };
