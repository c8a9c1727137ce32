//! Every instrument: its name, unit, labels and meaning. The one list from which the instruments are
//! made and docs/metrics.md is written. Labels are words of fixed sets: never an app, a repository,
//! an address.

use std::fmt::Write;

/// How its numbers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How often, how much in all, and how it is distributed.
    Histogram,
}

/// One instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its name over OTLP.
    pub name: &'static str,
    /// How its numbers behave.
    pub kind: Kind,
    /// Its unit after UCUM: `s`, `By`, or empty for a count.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
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

    /// Its name for Prometheus; a histogram has it with `_bucket`, `_sum` and `_count`.
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

/// `tidings_poll_duration_seconds`
pub const POLL: Instrument = Instrument::seconds(
    "tidings.poll.duration",
    &["outcome"],
    "Asking a Git host for refs. outcome: ok, or the code of the error (unreachable, timeout, rate_limited, \
     auth_failed, ...).",
);
/// `tidings_fetch_duration_seconds`
pub const FETCH: Instrument = Instrument::seconds(
    "tidings.fetch.duration",
    &["what", "outcome"],
    "Fetching from a Git host. what: commits (heads that moved) or contents (of narrow watches). outcome: as \
     of polls.",
);
/// `tidings_fetch_received_bytes_total`
pub const FETCH_BYTES: Instrument =
    Instrument::counter("tidings.fetch.received", "By", &["what"], "What fetches received.");
/// `tidings_fetch_objects_total`
pub const FETCH_OBJECTS: Instrument =
    Instrument::counter("tidings.fetch.objects", "", &["what"], "Objects that fetches brought.");
/// `tidings_scan_duration_seconds`
pub const SCAN: Instrument = Instrument::seconds(
    "tidings.scan.duration",
    &["outcome"],
    "A scan from its first request to the heads on disk. outcome: as of polls, or database_failed, crashed, \
     crowded (a slow scan beyond those that an app may have).",
);
/// `tidings_host_wait_seconds`
pub const HOST_WAIT: Instrument = Instrument::seconds(
    "tidings.host.wait",
    &[],
    "How long scans waited for their turn at a Git host (git.host_rate, git.host_concurrency).",
);
/// `tidings_host_scans`
pub const HOST_SCANS: Instrument = Instrument::gauge(
    "tidings.host.scans",
    "",
    &["state"],
    "Scans in line at Git hosts (waiting) and those that have their turn (running).",
);
/// `tidings_hosts`
pub const HOSTS: Instrument = Instrument::gauge(
    "tidings.hosts",
    "",
    &["state"],
    "Git hosts whose rate or concurrency binds, so that intervals stretch (stretched), that asked for \
     patience (patient), and that gave no answer to the last scan (silent).",
);
/// `tidings_mirrors`
pub const MIRRORS: Instrument = Instrument::gauge("tidings.mirrors", "", &[], "Mirrors on disk.");
/// `tidings_mirror_size_bytes`
pub const MIRROR_SIZE: Instrument =
    Instrument::gauge("tidings.mirror.size", "By", &[], "What all mirrors take together.");
/// `tidings_mirror_disk_free_bytes`
pub const DISK_FREE: Instrument =
    Instrument::gauge("tidings.mirror.disk.free", "By", &[], "What is free on the disk of the mirrors.");
/// `tidings_mirror_fetches_stopped`
pub const FETCHES_STOPPED: Instrument = Instrument::gauge(
    "tidings.mirror.fetches_stopped",
    "",
    &[],
    "1 while nothing is fetched because there is no room (git.free_min_bytes, git.mirrors_max_bytes).",
);
/// `tidings_attempt_duration_seconds`
pub const ATTEMPT: Instrument = Instrument::seconds(
    "tidings.attempt.duration",
    &["kind", "outcome"],
    "Requests to receivers. kind: change (a file in chunks counts once), batch, notice. outcome: 2xx, 3xx, \
     4xx, 429, 5xx, other, timeout, connection, refused (by the egress rules), invalid_url.",
);
/// `tidings_changes_settled_total`
pub const SETTLED: Instrument = Instrument::counter(
    "tidings.changes.settled",
    "",
    &["outcome"],
    "Changes that are settled on disk: acknowledged, or parked as dead letters.",
);
/// `tidings_dead_letters_parked_total`
pub const PARKED: Instrument = Instrument::counter(
    "tidings.dead_letters.parked",
    "",
    &["reason"],
    "Changes that were given up, by the reason that their dead letters show.",
);
/// `tidings_dead_letters_open`
pub const LETTERS: Instrument = Instrument::gauge(
    "tidings.dead_letters.open",
    "",
    &["reason"],
    "Dead letters that are open: not redriven, superseded or dismissed.",
);
/// `tidings_sources_failing`
pub const SOURCES_FAILING: Instrument = Instrument::gauge(
    "tidings.sources.failing",
    "",
    &["reason"],
    "Repositories, each as seen with one credential, whose last scan failed. reason: credential (refused), \
     not_found, unreachable, other. `tidings admin sources --failing` names them.",
);
/// `tidings_apps_behind`
pub const APPS_BEHIND: Instrument = Instrument::gauge(
    "tidings.apps.behind",
    "",
    &[],
    "Apps with an endpoint and a watch that is behind by more than 5 minutes although no branch of it is \
     blocked and no breaker of the endpoint is open.",
);
/// `tidings_breakers`
pub const BREAKERS: Instrument = Instrument::gauge(
    "tidings.breakers",
    "",
    &["kind", "state"],
    "Breakers with failures. kind: endpoint or source. state: closed, open, half-open.",
);
/// `tidings_watch_lag_seconds_bucket`
pub const LAG: Instrument = Instrument::gauge(
    "tidings.watch.lag.seconds.bucket",
    "",
    &["le"],
    "Served watches whose oldest unsettled change is at most so many seconds old; those that are not behind \
     are in every bucket. For histogram_quantile().",
);
/// `tidings_watch_lag_sum_seconds`
pub const LAG_SUM: Instrument =
    Instrument::gauge("tidings.watch.lag.sum", "s", &[], "The lags of all served watches together.");
/// `tidings_watch_lag_max_seconds`
pub const LAG_MAX: Instrument = Instrument::gauge(
    "tidings.watch.lag.max",
    "s",
    &[],
    "The age of the oldest unsettled change. GET /api/admin/lag names the worst watches.",
);
/// `tidings_watches`
pub const WATCHES: Instrument = Instrument::gauge("tidings.watches", "", &[], "Watches.");
/// `tidings_apps`
pub const APPS: Instrument = Instrument::gauge("tidings.apps", "", &[], "Registered apps.");
/// `tidings_apps_disabled`
pub const APPS_DISABLED: Instrument = Instrument::gauge(
    "tidings.apps.disabled",
    "",
    &[],
    "Apps that are disabled: nothing is sent to them. `tidings app list` names them with the reason.",
);
/// `tidings_repositories`
pub const REPOSITORIES: Instrument =
    Instrument::gauge("tidings.repositories", "", &[], "Repositories with a watch.");
/// `tidings_cursors`
pub const CURSORS: Instrument = Instrument::gauge(
    "tidings.cursors",
    "",
    &["state"],
    "Branches of watches that are behind their head (behind), wait at a change that was not taken (blocked), \
     or have an open round (open_round).",
);
/// `tidings_lanes`
pub const LANES: Instrument = Instrument::gauge("tidings.lanes", "", &[], "Lanes in memory.");
/// `tidings_attempts_in_flight`
pub const IN_FLIGHT: Instrument = Instrument::gauge(
    "tidings.attempts.in_flight",
    "",
    &[],
    "Stretches of attempts on their way to receivers.",
);
/// `tidings_actors`
pub const ACTORS: Instrument = Instrument::gauge(
    "tidings.actors",
    "",
    &["role", "state"],
    "Actors of the supervision tree that run (running) and that wait for their restart (waiting).",
);
/// `tidings_actor_mailbox`
pub const MAILBOX: Instrument = Instrument::gauge(
    "tidings.actor.mailbox",
    "",
    &["role"],
    "Messages that wait in all mailboxes of a role.",
);
/// `tidings_actor_mailbox_max`
pub const MAILBOX_MAX: Instrument = Instrument::gauge(
    "tidings.actor.mailbox.max",
    "",
    &["role"],
    "Messages that wait in the fullest mailbox of a role.",
);
/// `tidings_actor_restarts_total`
pub const RESTARTS: Instrument = Instrument::counter(
    "tidings.actor.restarts",
    "",
    &["role"],
    "Restarts of actors since the process began.",
);
/// `tidings_database_commit_seconds`
pub const COMMIT: Instrument = Instrument::seconds(
    "tidings.database.commit",
    &["outcome"],
    "Transactions of the writer, from begin to synced. outcome: ok, or failed (nothing of it was written).",
);
/// `tidings_database_verbs_total`
pub const VERBS: Instrument = Instrument::counter(
    "tidings.database.verbs",
    "",
    &[],
    "Verbs that these transactions carried; many share one.",
);
/// `tidings_survey_duration_seconds`
pub const SURVEY: Instrument = Instrument::seconds(
    "tidings.survey.duration",
    &[],
    "Reading what the gauges of this list tell (telemetry.survey_interval): how long the database takes to \
     answer questions.",
);
/// `tidings_survey_time_seconds`
pub const SURVEY_TIME: Instrument =
    Instrument::gauge("tidings.survey.time", "s", &[], "When that was done last, in unix seconds.");
/// `tidings_http_request_duration_seconds`
pub const HTTP: Instrument = Instrument::seconds(
    "tidings.http.request.duration",
    &["route", "method", "status"],
    "Requests to the API. route: the template, none where there is no such route. status: 2xx, 3xx, 4xx, \
     5xx.",
);
/// `tidings_http_connections`
pub const CONNECTIONS: Instrument =
    Instrument::gauge("tidings.http.connections", "", &[], "Open connections to the API.");
/// `tidings_keyring_keys`
pub const KEYS: Instrument = Instrument::gauge("tidings.keyring.keys", "", &[], "Keys of the keyring.");
/// `tidings_build`
pub const BUILD: Instrument =
    Instrument::gauge("tidings.build", "", &["version", "commit"], "What runs here; always 1.");
/// `process_resident_memory_bytes`
pub const MEMORY: Instrument =
    Instrument::gauge("process.resident_memory", "By", &[], "Resident memory of the process.");
/// `process_cpu_seconds_total`
pub const CPU: Instrument = Instrument::counter("process.cpu", "s", &[], "Processor time of the process.");
/// `process_open_fds`
pub const FILES: Instrument = Instrument::gauge("process.open_fds", "", &[], "Open files and sockets.");
/// `process_start_time_seconds`
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
            REPOSITORIES,
            WATCHES,
            CURSORS,
            LANES,
            IN_FLIGHT,
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
