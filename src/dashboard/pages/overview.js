// Is anything in the way? The figures of the whole server, what somebody should look at, and the branches that
// are behind for longest.
import { html, nothing } from "../vendor/lit-html.js";
import { get } from "../core/api.js";
import { mayDo, maySee } from "../core/session.js";
import { addressOf, go, link } from "../core/router.js";
import { bytes, count, manyOf, plainTimes, plural, ref, span } from "../core/format.js";
import { firstPage, heading } from "../parts/shell.js";
import { section, table } from "../parts/table.js";
import { empty } from "../parts/states.js";
import { SHARDS, badge, moment, stateBadge } from "../parts/words.js";
import { numbers, rateWords, plot, secondsOf } from "../parts/plot.js";
import { deliverySearch } from "../parts/fields.js";

const FRESH_MS = 60_000;

async function load(query, signal) {
  const first = firstPage();
  if (first) {
    go(addressOf(first), { replace: true });
    return { isLed: true };
  }
  const [overview, lag, replicas, samples] = await Promise.all([get("admin/overview", {}, signal), get("admin/lag", {}, signal),
    get("admin/replicas", {}, signal), get("admin/samples", {}, signal)]);
  return { overview, lag, replicas, samples };
}

const WORK = [
  ["branches_blocked", "blocked branch", "watches", { condition: "blocked" }, "bad"],
  ["credentials_refused", "refused credential", "system", { tab: "sources" }, "bad"],
  ["sources_failing", "failing source", "system", { tab: "sources" }, "bad"],
  ["breakers_open", "open breaker", "system", {}, "warn"],
  ["subscriptions_blocked", "blocked subscription", "ledger", { type: "subscription.blocked" }, "bad"],
  ["dead_letters", "open dead letter", "letters", {}, "warn"],
  ["apps_disabled", "disabled app", "apps", { q: "state:disabled" }, "warn"],
  ["sinks_disabled", "disabled sink", "ledger", { type: "sink.disabled" }, "warn"],
];

// The noun that goes with a number beside it.
const one = (number, noun) => (number === 1 ? noun : manyOf(noun));

const figure = (value, label, tone = "", href) => {
  const inner = html`<span class="value">${value}</span><span class="label">${label}</span>`;
  return href ? html`<a class="figure ${tone}" href=${href}>${inner}</a>` : html`<div class="figure ${tone}">${inner}</div>`;
};

// What there is of these troubles, in words.
const listed = (work, tone) => WORK.filter(([name, , , , is]) => is === tone && work[name] > 0)
  .map(([name, one]) => plural(work[name], one));

function verdict({ work, behind, lag_ms: lag, storage }) {
  const severe = [...listed(work, "bad"), storage.fetches_stopped ? `nothing is fetched: ${storage.fetches_stopped}` : ""].filter(Boolean);
  const others = listed(work, "warn");
  if (lag > FRESH_MS) others.unshift(`the oldest change waits for ${span(lag)}`);
  const said = (tone, title, text) => html`<div class="card verdict ${tone}"><strong>${title}</strong><p>${text}</p></div>`;
  if (severe.length) return said("bad", "Something needs you", `${sentence([...severe, ...others])}.`);
  if (others.length) return said("warn", "Worth a look", `${sentence(others)}. Nothing is blocked.`);
  return said("good", "All is well", behind ? `${plural(behind, "branch is", "branches are")} being brought up to date.` : "Every app has everything.");
}

const sentence = (parts) => {
  const text = parts.join(", ");
  return text.charAt(0).toUpperCase() + text.slice(1);
};

const worst = (lag) => table({
  caption: "The branches that are behind for longest",
  rows: lag.items,
  none: empty("Nothing is behind", "Every branch of every watch holds its newest commit."),
  columns: [
    { label: "Behind for", kind: "num", cell: (row) => span(row.lag_ms) },
    { label: "App", kind: "named", cell: (row) => html`<a href=${link("app", { app: row.app_id })}>${row.app_name}</a>` },
    { label: "Watch", kind: "wide", cell: (row) => html`<a href=${link("watch", { app: row.app_id, id: row.repository_id })}>${row.repository ?? row.name}</a>
      <span class="sub">${ref(row.branch)}${row.watch_name ? ` · ${row.watch_name}` : ""}</span>` },
    { label: "State", kind: "tight", cell: (row) => stateBadge(row.effective_state ?? row.state) },
    { label: "Reason", kind: "wide", cell: (row) => plainTimes(row.effective_reason ?? row.reason ?? "–") },
  ],
});

const health = (replicas) => table({
  caption: "The servers that share the database",
  rows: replicas.items,
  columns: [
    { label: "Server", kind: "wide", cell: (row) => html`${row.name}${row.is_this ? html` <span class="muted">(this one)</span>` : nothing}
      <span class="sub">${row.version} · ${row.role}</span>` },
    { label: "State", kind: "tight", cell: (row) => (row.seen_ms > 15_000 ? badge("bad", `silent for ${span(row.seen_ms)}`) : badge("good", "alive")) },
    { label: "Shards", kind: "num", title: SHARDS, cell: (row) => count(row.shards) },
    { label: "Lag", kind: "num", cell: (row) => span(row.lag_ms) },
    { label: "Started", kind: "tight", cell: (row) => moment(row.started_at) },
  ],
});

function history({ items }) {
  const at = items.map(secondsOf);
  const of = (name, divisor = 1) => items.map((row) => (row[name] === null ? null : row[name] / divisor));
  return html`<div class="columns">
      ${section("Lag", plot("lag", { at, unit: "s", lines: [{ label: "lag", values: of("lag_ms", 1000) }] }), html`<span class="muted small">the last hour</span>`)}
      ${section("Changes each second", plot("rates", { at, unit: "/s", lines: [{ label: "acknowledged", values: of("acknowledged_per_s") },
        { label: "attempts not taken", values: of("failed_per_s"), tone: "--bad", isDashed: true }] }), html`<span class="muted small">by this server</span>`)}
      ${section("Branches behind", plot("behind", { at, lines: [{ label: "branches behind", values: of("behind") }] }))}
      ${section("Open dead letters", plot("letters", { at, lines: [{ label: "open dead letters", values: of("dead_letters") }] }))}
    </div>
    ${numbers(items, [
        { label: "Lag", kind: "num", cell: (row) => span(row.lag_ms) },
        { label: "Behind", kind: "num", cell: (row) => count(row.behind) },
        { label: "Acknowledged/s", kind: "num", cell: (row) => rateWords(row.acknowledged_per_s) },
        { label: "Not taken/s", kind: "num", cell: (row) => rateWords(row.failed_per_s) },
        { label: "Scans/s", kind: "num", cell: (row) => rateWords(row.scans_per_s) },
        { label: "Dead letters", kind: "num", cell: (row) => count(row.dead_letters) }])}`;
}

// The scans that wait for their turn, over the hosts that are shown.
const waiting = (rows) => rows.reduce((sum, row) => sum + row.waiting, 0);

function view({ data }) {
  if (data.isLed) return nothing;
  const { overview, lag, replicas, samples } = data;
  return html`${heading("Overview", { text: html`Measured ${moment(overview.measured_at)}`, buttons: mayDo("apps:register") ? html`<a class="button" href=${link("start")}>Register an app</a>` : nothing })}
    <div class="sections">${verdict(overview)}
      ${section("Now", html`<div class="figures sixes">
        ${figure(overview.behind ? span(overview.lag_ms) : "0 s", "oldest change not delivered", overview.lag_ms > FRESH_MS ? "warn" : "")}
        ${figure(count(overview.behind), `${one(overview.behind, "branch")} behind`, "", link("watches", { condition: "behind" }))}
        ${figure(count(overview.open_rounds), `${one(overview.open_rounds, "round")} under way`)}
        ${WORK.map(([name, text, page, query, tone]) => figure(count(overview.work[name]), one(overview.work[name], text), overview.work[name] ? tone : "", link(page, query)))}
        ${figure(count(waiting(overview.hosts)), `${one(waiting(overview.hosts), "scan")} waiting for a Git host`)}
      </div>`)}
      ${section("Behind for longest", worst(lag), html`<a href=${link("watches", { condition: "behind" })}>All that are behind</a>`)}
      ${overview.tasks ? section("Tasks", tasks(overview.tasks), html`<a href=${link("queues")}>All queues</a>`) : nothing}
      ${maySee("deliveries") ? section("Find what became of a path", deliverySearch()) : nothing}
      ${history(samples)}
      ${section("Servers", health(replicas))}
      ${section("What there is", html`<div class="figures">
        ${figure(count(overview.apps), one(overview.apps, "app"), "", link("apps"))}
        ${figure(count(overview.repositories), one(overview.repositories, "repository"))}
        ${figure(count(overview.watches), one(overview.watches, "watch"), "", link("watches"))}
        ${figure(bytes(overview.storage.mirror_bytes), `in ${plural(overview.storage.mirrors, "mirror")}`)}
        ${figure(bytes(overview.storage.free_bytes), "free on the disk of mirrors")}
      </div>`)}
      ${overview.hosts.length ? section("Git hosts where scans wait", hosts(overview.hosts)) : nothing}
    </div>`;
}

// The tasks of all queues. Ended ones are kept for a time, so that their numbers fall by themselves.
const tasks = ({ oldest_ready_seconds: oldest, ready = 0, claimed = 0, waiting: due = 0, failed = 0, dead = 0 }) => html`<div class="figures sixes">
  ${figure(count(ready), `${one(ready, "task")} ready`, "", link("queues", { q: ready ? "NOT ready:0" : undefined }))}
  ${figure(oldest === undefined ? "–" : span(oldest * 1000), "oldest ready task")}
  ${figure(count(claimed), "with workers")}
  ${figure(count(due), "not due yet")}
  ${figure(count(failed), "failed", "", link("queues", { q: failed ? "NOT failed:0" : undefined }))}
  ${figure(count(dead), "dead", dead ? "warn" : "", link("queues", { q: dead ? "NOT dead:0" : undefined }))}</div>`;

const hosts = (rows) => table({
  caption: "Git hosts where scans wait for their turn",
  rows,
  columns: [
    { label: "Host", cell: (row) => row.host },
    { label: "Waiting", kind: "num", cell: (row) => count(row.waiting) },
    { label: "Scanning", kind: "num", cell: (row) => count(row.scanning) },
    { label: "Last waited", kind: "num", cell: (row) => span(row.waited_ms) },
  ],
});

export default { title: "Overview", load, view };
