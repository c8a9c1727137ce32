//! Every instrument: its name, unit, labels and meaning. The instruments and docs/metrics.md are generated
//! from this one list. Labels are words of fixed sets, and queues that the settings name: never another app,
//! a repository, an address.

mod tasks;

use std::fmt::Write;

pub use tasks::*;

/// How the numbers of an instrument change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only rises while the process runs.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// The count, the sum and the distribution of measurements.
    Histogram,
}

/// One instrument: the name, unit, labels and description of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// The name of the metric in OTLP.
    pub name: &'static str,
    /// How the numbers of the instrument change.
    pub kind: Kind,
    /// The unit in UCUM: `s`, `By`, or empty for a count.
    pub unit: &'static str,
    /// The names of the labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// The description of the metric, for docs/metrics.md and exporters.
    pub help: &'static str,
}

impl Instrument {
    const fn counter(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Counter, unit, labels, help }
    }

    const fn gauge(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Gauge, unit, labels, help }
    }

    const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit: "s", labels, help }
    }

    /// The name of the metric in Prometheus; a histogram has it with `_bucket`, `_sum` and `_count`.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        });
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// Duration of one `ls-refs` request, in seconds.
pub const POLL: Instrument = Instrument::seconds(
    "tidings.poll.duration",
    &["outcome"],
    "Asking a Git host for refs. outcome: ok, or the code of the error (unreachable, timeout, rate_limited, \
     auth_failed, ...).",
);
/// Duration of one fetch from a Git host, in seconds.
pub const FETCH: Instrument = Instrument::seconds(
    "tidings.fetch.duration",
    &["what", "outcome"],
    "Fetching from a Git host. what: commits (heads that moved) or contents (of narrow watches). outcome: as \
     of polls.",
);
/// Bytes received by fetches, since the process started.
pub const FETCH_BYTES: Instrument =
    Instrument::counter("tidings.fetch.received", "By", &["what"], "What fetches received.");
/// Git objects received by fetches, since the process started.
pub const FETCH_OBJECTS: Instrument =
    Instrument::counter("tidings.fetch.objects", "", &["what"], "Objects that fetches transferred.");
/// Duration of one scan, in seconds.
pub const SCAN: Instrument = Instrument::seconds(
    "tidings.scan.duration",
    &["outcome"],
    "A scan from its first request to the heads on disk. outcome: as of polls, or database_failed, crashed, \
     crowded (a slow scan beyond those that an app may have).",
);
/// Time that a scan waited for its turn at its Git host, in seconds.
pub const HOST_WAIT: Instrument = Instrument::seconds(
    "tidings.host.wait",
    &[],
    "How long scans waited for their turn at a Git host (git.host_rate, git.host_concurrency).",
);
/// The counter of statuses that Git hosts were told.
pub const STATUSES: Instrument = Instrument::counter(
    "tidings.statuses",
    "",
    &["outcome"],
    "Statuses of commits that Git hosts were told. outcome: taken, refused (for good), not_taken (told \
     later) or doubtful (told again).",
);
/// Number of scans that wait or run, by state.
pub const HOST_SCANS: Instrument = Instrument::gauge(
    "tidings.host.scans",
    "",
    &["state"],
    "Scans in line at Git hosts (waiting) and those that have their turn (running).",
);
/// Number of Git hosts in trouble, by state.
pub const HOSTS: Instrument = Instrument::gauge(
    "tidings.hosts",
    "",
    &["state"],
    "Git hosts whose rate or concurrency binds, so that intervals stretch (stretched), that asked to \
     wait (patient), and that gave no answer to the last scan (silent).",
);
/// Number of mirrors in the data directory.
pub const MIRRORS: Instrument = Instrument::gauge("tidings.mirrors", "", &[], "Mirrors on disk.");
/// Size of all mirrors in bytes.
pub const MIRROR_SIZE: Instrument =
    Instrument::gauge("tidings.mirror.size", "By", &[], "What all mirrors take together.");
/// Free space on the disk of the mirrors, in bytes.
pub const DISK_FREE: Instrument =
    Instrument::gauge("tidings.mirror.disk.free", "By", &[], "What is free on the disk of the mirrors.");
/// Whether fetches are stopped: 1 for yes, 0 for no.
pub const FETCHES_STOPPED: Instrument = Instrument::gauge(
    "tidings.mirror.fetches_stopped",
    "",
    &[],
    "1 while nothing is fetched because there is no room (git.free_min_bytes, git.mirrors_max_bytes).",
);
/// Duration of one attempt at a receiver, in seconds.
pub const ATTEMPT: Instrument = Instrument::seconds(
    "tidings.attempt.duration",
    &["kind", "outcome"],
    "Requests to receivers, and mails. kind: change (a file in chunks counts once), batch, notice, mail. \
     outcome: 2xx, 3xx, 4xx, 429, 5xx, other, timeout, connection, refused (by the egress rules), \
     invalid_url.",
);
/// Number of settled changes since the process started, by outcome.
pub const SETTLED: Instrument = Instrument::counter(
    "tidings.changes.settled",
    "",
    &["outcome"],
    "Changes that are settled on disk: acknowledged, or parked as dead letters.",
);
/// Number of parked changes since the process started, by reason.
pub const PARKED: Instrument = Instrument::counter(
    "tidings.dead_letters.parked",
    "",
    &["reason"],
    "Changes that were given up, by the reason that their dead letters show.",
);
/// Number of open dead letters, by reason.
pub const LETTERS: Instrument = Instrument::gauge(
    "tidings.dead_letters.open",
    "",
    &["reason"],
    "Dead letters that are open: not redriven, superseded or dismissed.",
);
/// Number of sources whose last scan failed, by reason.
pub const SOURCES_FAILING: Instrument = Instrument::gauge(
    "tidings.sources.failing",
    "",
    &["reason"],
    "Repositories, each as seen with one credential, whose last scan failed. reason: credential (refused), \
     not_found, unreachable, other. `tidings admin sources --failing` names them.",
);
/// Number of apps that are behind without a known cause.
pub const APPS_BEHIND: Instrument = Instrument::gauge(
    "tidings.apps.behind",
    "",
    &[],
    "Apps with an endpoint and a watch that is behind by more than 5 minutes although no branch of it is \
     blocked and no breaker of the endpoint is open.",
);
/// Number of breakers with failures, by kind and state.
pub const BREAKERS: Instrument = Instrument::gauge(
    "tidings.breakers",
    "",
    &["kind", "state"],
    "Breakers with failures. kind: endpoint or source. state: closed, open, half-open.",
);
/// Number of served watches by lag, in cumulative buckets of seconds.
pub const LAG: Instrument = Instrument::gauge(
    "tidings.watch.lag.seconds.bucket",
    "",
    &["le"],
    "Served watches whose oldest unsettled change is at most `le` seconds old; those that are not behind \
     are in every bucket. For histogram_quantile().",
);
/// Sum of the lags of all served watches, in seconds.
pub const LAG_SUM: Instrument =
    Instrument::gauge("tidings.watch.lag.sum", "s", &[], "The lags of all served watches together.");
/// Lag of the watch that is furthest behind, in seconds.
pub const LAG_MAX: Instrument = Instrument::gauge(
    "tidings.watch.lag.max",
    "s",
    &[],
    "The age of the oldest unsettled change. GET /api/admin/lag names the worst watches.",
);
/// Number of watches, paused ones included.
pub const WATCHES: Instrument = Instrument::gauge("tidings.watches", "", &[], "Watches.");
/// Number of apps, disabled ones included.
pub const APPS: Instrument = Instrument::gauge("tidings.apps", "", &[], "Registered apps.");
/// Number of apps that nothing is sent to.
pub const APPS_DISABLED: Instrument = Instrument::gauge(
    "tidings.apps.disabled",
    "",
    &[],
    "Apps that are disabled: nothing is sent to them. `tidings app list` names them with the reason.",
);
/// Number of own sinks of watches and subscriptions that nothing is sent to.
pub const SINKS_DISABLED: Instrument = Instrument::gauge(
    "tidings.sinks.disabled",
    "",
    &[],
    "Sinks of watches and subscriptions that are disabled because they answered 410: nothing is sent to \
     them. `tidings ledger list --all-apps --type sink.disabled` names them.",
);
/// Number of repositories that at least one watch follows.
pub const REPOSITORIES: Instrument =
    Instrument::gauge("tidings.repositories", "", &[], "Repositories with a watch.");
/// Number of cursors that are behind, blocked or delivering, by state.
pub const CURSORS: Instrument = Instrument::gauge(
    "tidings.cursors",
    "",
    &["state"],
    "Branches of watches that are behind their head (behind), wait at a change that was not taken (blocked), \
     or have an open round (open_round).",
);
/// Number of lanes in the memory of this process.
pub const LANES: Instrument = Instrument::gauge("tidings.lanes", "", &[], "Lanes in memory.");
/// Number of pipelines with an attempt in flight.
pub const IN_FLIGHT: Instrument = Instrument::gauge(
    "tidings.attempts.in_flight",
    "",
    &[],
    "Pipelines of attempts on their way to receivers.",
);
/// Number of actors, by role and state.
pub const ACTORS: Instrument = Instrument::gauge(
    "tidings.actors",
    "",
    &["role", "state"],
    "Actors of the supervision tree that run (running) and that wait for their restart (waiting).",
);
/// Number of waiting messages, by role.
pub const MAILBOX: Instrument = Instrument::gauge(
    "tidings.actor.mailbox",
    "",
    &["role"],
    "Messages that wait in all mailboxes of a role.",
);
/// Number of waiting messages in the fullest mailbox, by role.
pub const MAILBOX_MAX: Instrument = Instrument::gauge(
    "tidings.actor.mailbox.max",
    "",
    &["role"],
    "Messages that wait in the fullest mailbox of a role.",
);
/// Number of restarts of actors, by role.
pub const RESTARTS: Instrument = Instrument::counter(
    "tidings.actor.restarts",
    "",
    &["role"],
    "Restarts of actors since the process began.",
);
/// Duration of one transaction of the writer, in seconds.
pub const COMMIT: Instrument = Instrument::seconds(
    "tidings.database.commit",
    &["outcome"],
    "Transactions of the writer, from begin to synced. outcome: ok, or failed (nothing of it was written).",
);
/// Number of store verbs in the transactions of the writer, since the process started.
pub const VERBS: Instrument = Instrument::counter(
    "tidings.database.verbs",
    "",
    &[],
    "Verbs that these transactions carried; many share one.",
);
/// Duration of one survey, in seconds.
pub const SURVEY: Instrument = Instrument::seconds(
    "tidings.survey.duration",
    &[],
    "Reading the values of the gauges in this list from the database (telemetry.survey_interval).",
);
/// Moment of the last survey, in Unix seconds.
pub const SURVEY_TIME: Instrument =
    Instrument::gauge("tidings.survey.time", "s", &[], "When the gauges were last read, in unix seconds.");
/// Duration of one API request, in seconds.
pub const HTTP: Instrument = Instrument::seconds(
    "tidings.http.request.duration",
    &["route", "method", "status"],
    "Requests to the API. route: the template, none where there is no such route. status: 2xx, 3xx, 4xx, \
     5xx.",
);
/// Number of open connections at the listener.
pub const CONNECTIONS: Instrument =
    Instrument::gauge("tidings.http.connections", "", &[], "Open connections to the API.");
/// Number of keys in the keyring.
pub const KEYS: Instrument = Instrument::gauge("tidings.keyring.keys", "", &[], "Keys of the keyring.");
/// Version and commit of the running binary, as labels of the constant 1.
pub const BUILD: Instrument =
    Instrument::gauge("tidings.build", "", &["version", "commit"], "The running version; always 1.");
/// Resident memory of the process in bytes.
pub const MEMORY: Instrument =
    Instrument::gauge("process.resident_memory", "By", &[], "Resident memory of the process.");
/// Processor time that the process has used, in seconds.
pub const CPU: Instrument = Instrument::counter("process.cpu", "s", &[], "Processor time of the process.");
/// Number of open file descriptors of the process.
pub const FILES: Instrument = Instrument::gauge("process.open_fds", "", &[], "Open files and sockets.");
/// Moment when the process started, in Unix seconds.
pub const START: Instrument =
    Instrument::gauge("process.start_time", "s", &[], "When the process began, in unix seconds.");

/// Every instrument, in the order of the document.
pub const ALL: &[(&str, &[Instrument])] = &[
    (
        "The Git side",
        &[
            POLL,
            FETCH,
            FETCH_BYTES,
            FETCH_OBJECTS,
            SCAN,
            HOST_WAIT,
            STATUSES,
            HOST_SCANS,
            HOSTS,
            MIRRORS,
            MIRROR_SIZE,
            DISK_FREE,
            FETCHES_STOPPED,
            SOURCES_FAILING,
        ],
    ),
    (
        "The delivery side",
        &[
            LAG,
            LAG_SUM,
            LAG_MAX,
            APPS_BEHIND,
            ATTEMPT,
            SETTLED,
            PARKED,
            LETTERS,
            BREAKERS,
            APPS,
            APPS_DISABLED,
            SINKS_DISABLED,
            REPOSITORIES,
            WATCHES,
            CURSORS,
            LANES,
            IN_FLIGHT,
        ],
    ),
    (
        "Tasks",
        &[
            TASKS,
            TASKS_CREATED,
            TASKS_CLAIMED,
            TASKS_ENDED,
            CLAIMS_RUN_OUT,
            TASK_QUEUED,
            TASK_DURATION,
            WATCH_TASKS,
            HAND_OVERS_WAITING,
            HANDED_OVER,
            WATCH_TASKS_ENDED,
            CALLBACKS,
            WORKER_SUBSCRIPTIONS,
            WORK_TOLD,
        ],
    ),
    ("The tree", &[ACTORS, MAILBOX, MAILBOX_MAX, RESTARTS]),
    (
        "The server",
        &[COMMIT, VERBS, SURVEY, SURVEY_TIME, HTTP, CONNECTIONS, KEYS, BUILD, MEMORY, CPU, FILES, START],
    ),
];

/// The tables of docs/metrics.md.
#[must_use]
pub fn tables() -> String {
    let mut text = String::new();
    for (section, instruments) in ALL {
        let head = "| name | kind | labels | meaning |\n|---|---|---|---|";
        writeln!(text, "## {section}\n\n{head}").expect("a String takes all");
        for instrument in *instruments {
            let kind = match instrument.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = instrument.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, labels) = (instrument.prometheus(), labels.join(", "));
            writeln!(text, "| `{name}` | {kind} | {labels} | {} |", instrument.help)
                .expect("a String takes all");
        }
        text.push('\n');
    }
    text
}
