//! What is shown is what the list says, and nothing in it grows with apps or repositories.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;
use tidings_actors::ports::{
    Backlog, HandOverWait, HostsSurvey, LAG_BOUNDS, QueueTally, RoleSurvey, ScanTrouble, SendFailure,
    Storage, Totals, TreeSurvey,
};
use tidings_actors::time::Timestamp;
use tidings_entity::kind::BreakerKind;

use super::*;
use crate::instruments::{ALL, Kind, tables};

/// The queue that the settings name.
fn named() -> QueueName {
    "app_00000000000000000000000001/work".parse().expect("a name")
}

fn metrics() -> Metrics {
    Metrics::new(Resource::builder_empty().build(), &[named()], |builder| builder).expect("an empty registry")
}

fn outcome(result: Result<u16, SendFailure>) -> AttemptOutcome {
    let took = Duration::from_millis(20);
    AttemptOutcome { result, retry_after: None, excerpt: String::new(), took, answer: None }
}

fn survey() -> Survey {
    let mut behind = [0; LAG_BOUNDS.len() + 1];
    behind[3] = 2;
    behind[LAG_BOUNDS.len()] = 1;
    let role = RoleSurvey { running: 2, waiting: 1, mailbox: 5, mailbox_max: 4, restarts: 7 };
    Survey {
        at: Timestamp(1_500),
        took: Duration::from_millis(3),
        totals: Totals { watches: 10, apps: 4, blocked: 6, ..Totals::default() },
        backlog: Backlog {
            behind,
            lag_sum_ms: 2_500,
            lag_max_ms: 2_000,
            letters: BTreeMap::from([(ParkReason::ALL[0], 3)]),
            apps_behind: 2,
            sources_failing: BTreeMap::from([(ScanTrouble::Credential, 3)]),
            tasks: BTreeMap::from([(TaskState::Ready, 5)]),
            tasks_of: BTreeMap::from([(named(), BTreeMap::from([(TaskState::Ready, 2)]))]),
            watch_tasks: BTreeMap::from([(TaskState::Claimed, 3)]),
            hand_overs_waiting: BTreeMap::from([(HandOverWait::Window, 2)]),
            task_ready_since: None,
            apps_late: Vec::new(),
        },
        storage: Storage { mirrors: 1, mirror_bytes: 2, free_bytes: 3, fetches_stopped: None },
        hosts: HostsSurvey { waiting: 1, ..HostsSurvey::default() },
        tree: TreeSurvey {
            roles: BTreeMap::from([("deliverer", role)]),
            breakers: BTreeMap::from([((BreakerKind::Endpoint, "open"), 2)]),
            lanes: 8,
            in_flight: 9,
        },
    }
}

/// Everything is measured once.
fn exercised() -> Metrics {
    let (metrics, app) = (metrics(), "app_00000000000000000000000001".parse().expect("an id"));
    metrics.polled("ok", Duration::from_millis(2));
    metrics.fetched(Fetched::Commits, Ok(FetchReport { bytes: 5, objects: 6 }), Duration::from_millis(2));
    metrics.fetched(Fetched::Contents, Err("timeout"), Duration::from_millis(2));
    metrics.scanned("ok", Duration::from_millis(4));
    metrics.waited(Duration::from_millis(4));
    metrics.status_told("taken");
    metrics.called_back("refused");
    metrics.work_told("left_out");
    metrics.attempted(&app, AttemptKind::Change, &outcome(Ok(200)));
    metrics.attempted(&app, AttemptKind::Notice, &outcome(Err(SendFailure::Timeout)));
    metrics.settled(&app, 12, &[ParkReason::ALL[0], ParkReason::ALL[0]]);
    metrics.committed(true, 3, Duration::from_millis(1));
    let moved = QueueTally {
        created: 4,
        handed_over: 6,
        queued: vec![Duration::from_millis(3), Duration::from_secs(3_600)],
        ended: vec![
            (TaskState::Succeeded, Duration::from_secs(2)),
            (TaskState::Dead, Duration::from_secs(3)),
        ],
        run_out: 1,
    };
    let one = QueueTally { created: 1, ..QueueTally::default() };
    let others = ["a", "b"].map(|command| QueueName { command: command.into(), ..named() });
    metrics.tasks_moved(&TaskTally {
        queues: others.into_iter().map(|name| (name, one.clone())).chain([(named(), moved)]).collect(),
        of_watches: vec![(app.clone(), WatchTaskEnd::Succeeded), (app, WatchTaskEnd::Dead)],
    });
    metrics.requested("/api/app", "GET", 404, Duration::from_millis(1));
    metrics.surveyed(survey());
    metrics
}

#[test]
fn every_instrument_of_the_list_is_shown_with_its_labels_and_no_other_is() {
    let text = exercised().text().expect("text");
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let names: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let base = names.iter().filter(|base| name.starts_with(**base)).max_by_key(|base| base.len());
        let found = shown.entry((*base.expect("every series has a type")).to_owned()).or_default();
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        found.extend(labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned())));
    }
    let listed = ALL.iter().flat_map(|(_, instruments)| *instruments).map(|instrument| {
        let mut labels: BTreeSet<String> = instrument.labels.iter().map(ToString::to_string).collect();
        if instrument.kind == Kind::Histogram {
            labels.insert("le".to_owned());
        }
        (instrument.prometheus(), labels)
    });
    assert_eq!(shown, listed.collect(), "{text}");
}

#[test]
fn numbers_are_those_that_were_measured() {
    let text = exercised().text().expect("text");
    for line in [
        "tidings_poll_duration_seconds_count{outcome=\"ok\"} 1",
        "tidings_poll_duration_seconds_bucket{outcome=\"ok\",le=\"0.001\"} 0",
        "tidings_poll_duration_seconds_bucket{outcome=\"ok\",le=\"0.0025\"} 1",
        "tidings_fetch_received_bytes_total{what=\"commits\"} 5",
        "tidings_fetch_duration_seconds_count{outcome=\"timeout\",what=\"contents\"} 1",
        "tidings_attempt_duration_seconds_count{kind=\"change\",outcome=\"2xx\"} 1",
        "tidings_attempt_duration_seconds_count{kind=\"notice\",outcome=\"timeout\"} 1",
        "tidings_changes_settled_total{outcome=\"acknowledged\"} 13",
        "tidings_changes_settled_total{outcome=\"parked\"} 3",
        "tidings_dead_letters_parked_total{reason=\"failing\"} 1",
        "tidings_watch_tasks{state=\"claimed\"} 3",
        "tidings_watch_tasks{state=\"aside\"} 0",
        "tidings_watch_hand_overs_waiting{reason=\"window\"} 2",
        "tidings_watch_hand_overs_waiting{reason=\"deletes\"} 0",
        "tidings_watch_tasks_handed_over_total 6",
        "tidings_watch_tasks_ended_total{outcome=\"succeeded\"} 1",
        "tidings_watch_tasks_ended_total{outcome=\"overtaken\"} 0",
        "tidings_breakers{kind=\"endpoint\",state=\"open\"} 2",
        "tidings_sources_failing{reason=\"credential\"} 3",
        "tidings_sources_failing{reason=\"not_found\"} 0",
        "tidings_apps_behind 2",
        "tidings_breakers{kind=\"source\",state=\"open\"} 0",
        "tidings_watch_lag_seconds_bucket{le=\"0\"} 7",
        "tidings_watch_lag_seconds_bucket{le=\"15\"} 9",
        "tidings_watch_lag_seconds_bucket{le=\"604800\"} 9",
        "tidings_watch_lag_seconds_bucket{le=\"+Inf\"} 10",
        "tidings_watch_lag_sum_seconds 2.5",
        "tidings_watch_lag_max_seconds 2",
        "tidings_actor_restarts_total{role=\"deliverer\"} 7",
        "tidings_actor_mailbox_max{role=\"deliverer\"} 4",
        "tidings_http_request_duration_seconds_count{method=\"GET\",route=\"/api/app\",status=\"4xx\"} 1",
        "tidings_database_verbs_total 3",
        "tidings_tasks{queue=\"app_00000000000000000000000001/work\",state=\"ready\"} 2",
        "tidings_tasks{queue=\"other\",state=\"ready\"} 3",
        "tidings_tasks{queue=\"other\",state=\"dead\"} 0",
        "tidings_tasks_created_total{queue=\"app_00000000000000000000000001/work\"} 4",
        "tidings_tasks_created_total{queue=\"other\"} 2",
        "tidings_tasks_claimed_total{queue=\"app_00000000000000000000000001/work\"} 2",
        "tidings_tasks_ended_total{queue=\"app_00000000000000000000000001/work\",state=\"dead\"} 1",
        "tidings_tasks_ended_total{queue=\"other\",state=\"dead\"} 0",
        "tidings_tasks_claims_run_out_total{queue=\"app_00000000000000000000000001/work\"} 1",
        "tidings_task_queued_seconds_bucket{queue=\"app_00000000000000000000000001/work\",le=\"0.005\"} 1",
        "tidings_task_queued_seconds_bucket{queue=\"app_00000000000000000000000001/work\",le=\"7200\"} 2",
        "tidings_task_duration_seconds_count{queue=\"app_00000000000000000000000001/work\",state=\"succeeded\"} 1",
        "tidings_survey_time_seconds 1.5",
        "tidings_mirror_fetches_stopped 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
}

#[test]
fn queues_that_no_setting_names_add_no_series() {
    let metrics = exercised();
    let series = |metrics: &Metrics| metrics.text().expect("text").matches("queue=").count();
    let before = series(&metrics);
    let one = QueueTally { created: 1, ..QueueTally::default() };
    let many = (0..10_000).map(|number| QueueName { command: format!("made-up-{number}"), ..named() });
    let queues = many.map(|name| (name, one.clone())).collect();
    metrics.tasks_moved(&TaskTally { queues, of_watches: Vec::new() });
    assert_eq!(series(&metrics), before);
}

#[test]
fn the_first_rise_of_a_rare_event_is_seen() {
    let text = metrics().text().expect("text");
    for reason in ParkReason::ALL {
        let line = format!("tidings_dead_letters_parked_total{{reason=\"{reason}\"}} 0");
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
    assert!(text.contains("tidings_changes_settled_total{outcome=\"parked\"} 0"));
    assert!(text.contains("tidings_tasks_ended_total{queue=\"other\",state=\"dead\"} 0"));
    assert!(text.contains("tidings_tasks_claims_run_out_total{queue=\"other\"} 0"));
}

#[test]
fn connections_are_counted_while_they_live() {
    let metrics = metrics();
    let (one, two) = (metrics.connected(), metrics.connected());
    assert!(metrics.text().expect("text").contains("tidings_http_connections 2"));
    drop((one, two));
    assert!(metrics.text().expect("text").contains("tidings_http_connections 0"));
}

#[test]
fn the_document_lists_every_instrument() {
    let head = "# Metrics\n\nWhat `GET /metrics` shows to Prometheus, and what `telemetry.otlp_metrics_endpoint` \
                is sent: the same numbers (over OTLP their names have dots, and neither unit nor `_total` at the \
                end). A test holds this page and the code equal.\n\nLabels have words of fixed sets. No number is \
                of one app or one repository: ask `GET /api/admin/lag`, the admin API and the traces for those. \
                Only `queue` is chosen by settings: it is `APP/COMMAND` of each queue in `telemetry.queues`, and \
                `other` of all other queues together. \
                Gauges are measured once each `telemetry.survey_interval`; counters and histograms begin at zero \
                with the process. A histogram has `_bucket`, `_sum` and `_count` behind its name.\n\n\
                Ready rules and dashboards lie in `deploy/prometheus` and `deploy/grafana`.\n\n";
    let text = format!("{head}{}", tables());
    expect_file!["../../../docs/metrics.md"].assert_eq(&format!("{}\n", text.trim_end()));
}

#[test]
fn keys_are_counted_when_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let random = tidings_actors::testing::SeededRandom::new(1);
    let keyring = Arc::new(Keyring::create(&folder.path().join("keyring"), &random).expect("made"));
    let metrics = metrics();
    let shown =
        |count: u32| metrics.text().expect("text").contains(&format!("\ntidings_keyring_keys {count}\n"));
    assert!(shown(0));
    metrics.keyring(&keyring);
    assert!(shown(1));
    keyring.rotate(&random).expect("rotated");
    assert!(shown(2), "{}", metrics.text().expect("text"));
}
