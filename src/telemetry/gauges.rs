//! Values that are read on each scrape: the last survey, and the system's data about this process.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::Meter};
use tidings_actors::ports::{HandOverWait, LAG_BOUNDS, ScanTrouble, Survey};

use super::{
    instruments::{self as list, Instrument},
    metrics::{Latest, Take, observed},
    process,
    queue_labels::{OTHER, QUEUE},
};

/// The labels of [`LAG_BOUNDS`], and of the lags beyond the last bound.
const LAG_LABELS: [&str; LAG_BOUNDS.len() + 1] =
    ["0", "1", "5", "15", "60", "300", "900", "3600", "14400", "86400", "259200", "604800", "+Inf"];

/// Reads values off a survey.
type Read = fn(&Survey, Take<'_>);

/// Reads a value from the system; `None`: the system does not report it.
type Ask = fn() -> Option<f64>;

/// Every gauge that a survey fills.
const SURVEYED: &[(Instrument, Read)] = &[
    (list::HOST_SCANS, |survey, take| {
        take(survey.hosts.waiting as f64, &state("waiting"));
        take(survey.hosts.scanning as f64, &state("running"));
    }),
    (list::HOSTS, |survey, take| {
        take(survey.hosts.stretched as f64, &state("stretched"));
        take(survey.hosts.patient as f64, &state("patient"));
        take(survey.hosts.silent as f64, &state("silent"));
    }),
    (list::MIRRORS, |survey, take| take(survey.storage.mirrors as f64, &[])),
    (list::MIRROR_SIZE, |survey, take| take(survey.storage.mirror_bytes as f64, &[])),
    (list::DISK_FREE, |survey, take| take(survey.storage.free_bytes as f64, &[])),
    (list::FETCHES_STOPPED, |survey, take| {
        take(f64::from(u8::from(survey.storage.fetches_stopped.is_some())), &[]);
    }),
    (list::LETTERS, |survey, take| {
        for reason in tidings_entity::kind::ParkReason::ALL {
            let letters = survey.backlog.letters.get(reason).copied().unwrap_or(0);
            take(letters as f64, &[KeyValue::new("reason", reason.as_str())]);
        }
    }),
    (list::SOURCES_FAILING, |survey, take| {
        for trouble in ScanTrouble::ALL {
            let sources = survey.backlog.sources_failing.get(&trouble).copied().unwrap_or(0);
            take(sources as f64, &[KeyValue::new("reason", trouble.as_str())]);
        }
    }),
    (list::APPS_BEHIND, |survey, take| take(survey.backlog.apps_behind as f64, &[])),
    (list::BREAKERS, |survey, take| {
        for kind in tidings_entity::kind::BreakerKind::ALL {
            for word in ["closed", "open", "half-open"] {
                let breakers = survey.tree.breakers.get(&(*kind, word)).copied().unwrap_or(0);
                let labels = [KeyValue::new("kind", kind.as_str()), KeyValue::new("state", word)];
                take(breakers as f64, &labels);
            }
        }
    }),
    (list::LAG, |survey, take| {
        // A watch that is not behind is within every bound.
        let behind: u64 = survey.backlog.behind.iter().sum();
        let mut within = survey.totals.watches.saturating_sub(behind);
        for (count, label) in survey.backlog.behind.iter().zip(LAG_LABELS) {
            within += count;
            take(within as f64, &[KeyValue::new("le", label)]);
        }
    }),
    (list::LAG_SUM, |survey, take| take(seconds(survey.backlog.lag_sum_ms), &[])),
    (list::LAG_MAX, |survey, take| take(seconds(survey.backlog.lag_max_ms), &[])),
    (list::WATCHES, |survey, take| take(survey.totals.watches as f64, &[])),
    (list::APPS, |survey, take| take(survey.totals.apps as f64, &[])),
    (list::APPS_DISABLED, |survey, take| take(survey.totals.apps_disabled as f64, &[])),
    (list::SINKS_DISABLED, |survey, take| take(survey.totals.sinks_disabled as f64, &[])),
    (list::REPOSITORIES, |survey, take| take(survey.totals.repositories as f64, &[])),
    (list::CURSORS, |survey, take| {
        take(survey.totals.behind as f64, &state("behind"));
        take(survey.totals.blocked as f64, &state("blocked"));
        take(survey.totals.open_rounds as f64, &state("open_round"));
    }),
    (list::LANES, |survey, take| take(survey.tree.lanes as f64, &[])),
    (list::IN_FLIGHT, |survey, take| take(survey.tree.in_flight as f64, &[])),
    (list::TASKS, |survey, take| {
        for word in tidings_entity::kind::TaskState::ALL {
            let labels = |queue: KeyValue| [KeyValue::new("state", word.as_str()), queue];
            let mut others = survey.backlog.tasks.get(word).copied().unwrap_or(0);
            for (queue, depths) in &survey.backlog.tasks_of {
                let tasks = depths.get(word).copied().unwrap_or(0);
                others = others.saturating_sub(tasks);
                take(tasks as f64, &labels(KeyValue::new(QUEUE, queue.to_string())));
            }
            take(others as f64, &labels(KeyValue::new(QUEUE, OTHER)));
        }
    }),
    (list::WATCH_TASKS, |survey, take| {
        for word in tidings_entity::kind::TaskState::ALL.iter().filter(|word| !word.has_ended()) {
            let tasks = survey.backlog.watch_tasks.get(word).copied().unwrap_or(0);
            take(tasks as f64, &state(word.as_str()));
        }
    }),
    (list::HAND_OVERS_WAITING, |survey, take| {
        for reason in HandOverWait::ALL {
            let branches = survey.backlog.hand_overs_waiting.get(&reason).copied().unwrap_or(0);
            take(branches as f64, &[KeyValue::new("reason", reason.as_str())]);
        }
    }),
    (list::WORKER_SUBSCRIPTIONS, |survey, take| take(survey.totals.worker_subscriptions as f64, &[])),
    (list::ACTORS, |survey, take| {
        for (name, found) in &survey.tree.roles {
            let of = |word| [KeyValue::new("role", *name), KeyValue::new("state", word)];
            take(found.running as f64, &of("running"));
            take(found.waiting as f64, &of("waiting"));
        }
    }),
    (list::MAILBOX, |survey, take| {
        survey.tree.roles.iter().for_each(|(name, found)| take(found.mailbox as f64, &role(name)));
    }),
    (list::MAILBOX_MAX, |survey, take| {
        survey.tree.roles.iter().for_each(|(name, found)| take(found.mailbox_max as f64, &role(name)));
    }),
    (list::RESTARTS, |survey, take| {
        survey.tree.roles.iter().for_each(|(name, found)| take(found.restarts as f64, &role(name)));
    }),
    (list::SURVEY_TIME, |survey, take| take(survey.at.0 as f64 / 1_000.0, &[])),
];

/// Values that are read from the process itself.
const OF_PROCESS: &[(Instrument, Ask)] = &[
    (list::MEMORY, process::resident_bytes),
    (list::CPU, process::cpu_seconds),
    (list::FILES, process::open_files),
    (list::START, process::started_at),
];

/// Registers every gauge with `meter`; each reads the last survey, or this process.
pub(super) fn register(meter: &Meter, latest: &Arc<Latest>) {
    for (instrument, read) in SURVEYED {
        let latest = latest.clone();
        observed(meter, instrument, move |take| {
            if let Some(survey) = &*latest.survey.lock() {
                read(survey, take);
            }
        });
    }
    for (instrument, read) in OF_PROCESS {
        observed(meter, instrument, move |take| {
            if let Some(value) = read() {
                take(value, &[]);
            }
        });
    }
    let (connections, keys) = (latest.clone(), latest.clone());
    observed(meter, &list::CONNECTIONS, move |take| take(connections.connections.load(Relaxed) as f64, &[]));
    observed(meter, &list::KEYS, move |take| {
        let keyring = keys.keyring.lock().upgrade();
        take(keyring.map_or(0, |keyring| keyring.status().keys.len()) as f64, &[]);
    });
    observed(meter, &list::BUILD, |take| {
        let commit = option_env!("TIDINGS_GIT_SHA").unwrap_or("unknown");
        take(1.0, &[KeyValue::new("version", env!("CARGO_PKG_VERSION")), KeyValue::new("commit", commit)]);
    });
}

fn state(word: &'static str) -> [KeyValue; 1] {
    [KeyValue::new("state", word)]
}

fn role(name: &'static str) -> [KeyValue; 1] {
    [KeyValue::new("role", name)]
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_lag_are_its_bounds() {
        let bounds: Vec<String> = LAG_BOUNDS.iter().map(u64::to_string).chain(["+Inf".to_owned()]).collect();
        assert_eq!(bounds, LAG_LABELS);
    }
}
