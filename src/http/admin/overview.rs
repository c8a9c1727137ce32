//! `GET /api/admin/overview`: the state of the installation, in numbers. They come from the last survey of
//! this process; if this process makes no survey of rows, it asks the database, at most every two seconds for
//! all callers together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    limits::hosts::HostShown,
    ports::{Backlog, ScanTrouble, Storage, Totals},
    time::Timestamp,
};
use tokio::sync::Mutex;

use super::super::front::Front;
use crate::http::{
    bodies::{
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
};
use crate::telemetry::Metrics;

/// Git hosts shown in the overview.
const HOSTS_SHOWN: usize = 10;
/// How long numbers that were read for an answer are given again.
const FRESH: Duration = Duration::from_secs(2);
/// A survey that is older than this many intervals is not shown: the surveyor is held up.
const INTERVALS_MAX: u32 = 4;

/// The numbers of the last read, for a process without surveys.
#[derive(Default)]
pub struct Measured(Mutex<Option<Numbers>>);

/// The numbers from the rows at a moment.
#[derive(Clone)]
struct Numbers {
    at: Timestamp,
    totals: Totals,
    backlog: Backlog,
}

/// The routes of this file.
pub(super) fn routes(measured: &Arc<Measured>) -> Vec<Route> {
    vec![route_with::<__path_overview, _, _, _>(Access::Staff(Permission::SystemRead), measured, overview)]
}

/// What needs attention, as numbers; 0 everywhere: all is well.
#[derive(Serialize)]
struct Work {
    /// Repositories, each as seen with one credential, whose credential is refused: `admin sources
    /// --failing`.
    credentials_refused: u64,
    /// Repositories that cannot be read for another reason: `admin sources --failing`.
    sources_failing: u64,
    /// Branches that are blocked: `admin watches --condition blocked`.
    branches_blocked: u64,
    /// Breakers that are open: `admin breaker list`.
    breakers_open: u64,
    /// Subscriptions that are blocked: `ledger list --all-apps --type subscription.blocked`.
    subscriptions_blocked: u64,
    /// Apps that are disabled, by their owner or because their endpoint answered 410 Gone: `app list`.
    apps_disabled: u64,
    /// Sinks of watches and subscriptions that are disabled because they answered 410 Gone: `ledger list
    /// --all-apps --type sink.disabled`.
    sinks_disabled: u64,
    /// Open dead letters of all apps: `admin dead-letters`.
    dead_letters: u64,
}

impl Work {
    fn of(totals: &Totals, backlog: &Backlog) -> Self {
        let refused = backlog.sources_failing.get(&ScanTrouble::Credential).copied().unwrap_or(0);
        Self {
            credentials_refused: refused,
            sources_failing: backlog.sources_failing.values().sum::<u64>() - refused,
            branches_blocked: totals.blocked,
            breakers_open: totals.open_breakers,
            subscriptions_blocked: totals.subscriptions_blocked,
            apps_disabled: totals.apps_disabled,
            sinks_disabled: totals.sinks_disabled,
            dead_letters: totals.dead_letters,
        }
    }
}

/// The tasks of all queues.
#[derive(Serialize)]
struct TasksShown {
    /// How many tasks are in each state. States without tasks are left out.
    #[serde(flatten)]
    states: BTreeMap<&'static str, u64>,
    /// How long ago the task was created that is next in line in its queue: the longest time over all queues
    /// that are not paused. Missing: no task is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_ready_seconds: Option<u64>,
}

impl TasksShown {
    /// `None` if there is no task.
    fn of(backlog: &Backlog, now: Timestamp) -> Option<Self> {
        let states = backlog.tasks.iter().map(|(state, count)| (state.as_str(), *count)).collect();
        let oldest_ready_seconds = backlog.task_ready_since.map(|since| now.since(since).as_secs());
        (!backlog.tasks.is_empty()).then_some(Self { states, oldest_ready_seconds })
    }
}

/// The totals, what is in the way, what mirrors take, and the Git hosts where polls wait: the longest lines
/// first.
#[derive(Serialize)]
struct Overview {
    /// When the numbers of rows were measured.
    measured_at: String,
    #[serde(flatten)]
    totals: Totals,
    work: Work,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<TasksShown>,
    storage: Storage,
    hosts: Vec<HostShown>,
}

/// Shows counts over all apps, the work that waits, tasks by their states, the disk space of mirrors, and Git
/// hosts under load. The counts come from the last survey (`telemetry.survey_interval`), made at
/// `measured_at`.
#[utoipa::path(get, path = "/api/admin/overview", tag = "admin", responses(
    (status = 200, body = Object)
))]
async fn overview(front: Arc<Front>, measured: Arc<Measured>, _request: Request) -> Answer {
    let Numbers { at, totals, backlog } = match surveyed(&front) {
        Some(numbers) => numbers,
        None => measured.read(&front).await?,
    };
    let storage = front.git.storage().await;
    let storage = storage.map_err(|error| Problem::new(Kind::UNAVAILABLE).with_detail(error.to_string()))?;
    let work = Work::of(&totals, &backlog);
    let tasks = TasksShown::of(&backlog, at);
    let hosts = front.git.hosts().shown(HOSTS_SHOWN);
    Ok(json(StatusCode::OK, &Overview { measured_at: iso(at), totals, work, tasks, storage, hosts }))
}

/// The numbers of the last survey, if this process makes surveys and the last one is recent enough.
fn surveyed(front: &Front) -> Option<Numbers> {
    let survey = Metrics::of_process().survey_of_rows()?;
    let oldest = front.settings.telemetry.survey_interval * INTERVALS_MAX;
    let is_new = front.clock.now().since(survey.at) <= oldest;
    is_new.then_some(Numbers { at: survey.at, totals: survey.totals, backlog: survey.backlog })
}

impl Measured {
    /// Reads the numbers from the rows, or returns those of the last two seconds. One request reads, the
    /// others wait for it.
    async fn read(&self, front: &Front) -> Result<Numbers, Problem> {
        let mut last = self.0.lock().await;
        let now = front.clock.now();
        if let Some(numbers) = last.as_ref().filter(|last| now.since(last.at) < FRESH && last.at <= now) {
            return Ok(numbers.clone());
        }
        let failed = |error| Problem::of_store(error, Kind::NO_ROUTE);
        let totals = front.store.totals(now).await.map_err(failed)?;
        let backlog = front.store.backlog(now).await.map_err(failed)?;
        Ok(last.insert(Numbers { at: now, totals, backlog }).clone())
    }
}
