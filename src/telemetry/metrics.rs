//! The metrics of this process. One set of instruments serves scrapes of `/metrics` and the OTLP exporter
//! alike. A measurement is a look-up and an addition, without allocation or waiting.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Histogram, Meter as OtelMeter, MeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{MeterProviderBuilder, SdkMeterProvider},
};
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use thiserror::Error;
use tidings_actors::{
    model::queue_name::QueueName,
    ports::{
        AttemptKind, AttemptOutcome, FetchReport, Fetched, Meter, Survey, TaskTally, WatchTaskEnd,
        attempt_outcome,
    },
};
use tidings_entity::{
    id::AppId,
    kind::{ParkReason, TaskState},
};
use tidings_secrets::Keyring;

use super::{
    app_samples::{AppSample, AppSamples},
    gauges, instruments as list,
    instruments::Instrument,
    queue_labels::QueueLabels,
    queue_samples::{QueueSample, QueueSamples},
    samples::{Sample, Samples, told},
};

/// Bounds of all durations, in seconds.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Bounds of the times of tasks, in seconds: a task may wait and run for days.
const TASK_SECONDS: [f64; 16] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0,
];

/// The numbers of the process, once telemetry was started.
static PROCESS: OnceLock<Metrics> = OnceLock::new();

/// Why there are no numbers.
#[derive(Debug, Error)]
#[error("metrics cannot be shown: {0}")]
pub struct MetricsError(String);

/// Values that are set between two surveys and shown as they are.
#[derive(Debug, Default)]
pub(super) struct Latest {
    pub(super) survey: Mutex<Option<Survey>>,
    pub(super) samples: Samples,
    pub(super) app_samples: AppSamples,
    pub(super) queue_samples: QueueSamples,
    pub(super) connections: AtomicU64,
    pub(super) keyring: Mutex<Weak<Keyring>>,
}

/// The instruments. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    provider: SdkMeterProvider,
    registry: Registry,
    latest: Arc<Latest>,
    poll: Histogram<f64>,
    fetch: Histogram<f64>,
    fetch_bytes: Counter<u64>,
    fetch_objects: Counter<u64>,
    scan: Histogram<f64>,
    host_wait: Histogram<f64>,
    statuses: Counter<u64>,
    callbacks: Counter<u64>,
    work_told: Counter<u64>,
    attempt: Histogram<f64>,
    settled: Counter<u64>,
    parked: Counter<u64>,
    commit: Histogram<f64>,
    verbs: Counter<u64>,
    tasks: TaskInstruments,
    queues: QueueLabels,
    survey: Histogram<f64>,
    http: Histogram<f64>,
}

struct TaskInstruments {
    created: Counter<u64>,
    claimed: Counter<u64>,
    ended: Counter<u64>,
    run_out: Counter<u64>,
    queued: Histogram<f64>,
    duration: Histogram<f64>,
    handed_over: Counter<u64>,
    of_watches: Counter<u64>,
}

impl TaskInstruments {
    fn of(meter: &OtelMeter) -> Self {
        Self {
            created: counter(meter, &list::TASKS_CREATED),
            claimed: counter(meter, &list::TASKS_CLAIMED),
            ended: counter(meter, &list::TASKS_ENDED),
            run_out: counter(meter, &list::CLAIMS_RUN_OUT),
            queued: histogram(meter, &list::TASK_QUEUED, &TASK_SECONDS),
            duration: histogram(meter, &list::TASK_DURATION, &TASK_SECONDS),
            handed_over: counter(meter, &list::HANDED_OVER),
            of_watches: counter(meter, &list::WATCH_TASKS_ENDED),
        }
    }
}

impl Metrics {
    /// Instruments that are shown at `/metrics` and, where `exported` adds a reader, elsewhere too. Tasks of
    /// `queues` have a label of their own.
    ///
    /// # Errors
    /// [`MetricsError`] when the registry refuses the exporter.
    pub fn new(
        resource: Resource,
        queues: &[QueueName],
        exported: impl FnOnce(MeterProviderBuilder) -> MeterProviderBuilder,
    ) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let shown = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(shown);
        let provider = exported(builder).build();
        let meter = provider.meter("tidings");
        let latest = Arc::new(Latest::default());
        gauges::register(&meter, &latest);
        let metrics = Self(Arc::new(Inner {
            registry,
            latest,
            poll: seconds(&meter, &list::POLL),
            fetch: seconds(&meter, &list::FETCH),
            fetch_bytes: counter(&meter, &list::FETCH_BYTES),
            fetch_objects: counter(&meter, &list::FETCH_OBJECTS),
            scan: seconds(&meter, &list::SCAN),
            host_wait: seconds(&meter, &list::HOST_WAIT),
            statuses: counter(&meter, &list::STATUSES),
            callbacks: counter(&meter, &list::CALLBACKS),
            work_told: counter(&meter, &list::WORK_TOLD),
            attempt: seconds(&meter, &list::ATTEMPT),
            settled: counter(&meter, &list::SETTLED),
            parked: counter(&meter, &list::PARKED),
            commit: seconds(&meter, &list::COMMIT),
            verbs: counter(&meter, &list::VERBS),
            tasks: TaskInstruments::of(&meter),
            queues: QueueLabels::of(queues),
            survey: seconds(&meter, &list::SURVEY),
            http: seconds(&meter, &list::HTTP),
            provider,
        }));
        metrics.begin();
        Ok(metrics)
    }

    /// Starts counters of rare events at zero, so that a query for a rise sees the first event too.
    fn begin(&self) {
        self.count_settled(0, &[]);
        for reason in ParkReason::ALL {
            self.0.parked.add(0, &[KeyValue::new("reason", reason.as_str())]);
        }
        let tasks = &self.0.tasks;
        for queue in self.0.queues.all() {
            [&tasks.created, &tasks.claimed, &tasks.run_out]
                .into_iter()
                .for_each(|counter| counter.add(0, std::slice::from_ref(queue)));
            for state in TaskState::ALL.iter().filter(|state| state.has_ended()) {
                tasks.ended.add(0, &[KeyValue::new("state", state.as_str()), queue.clone()]);
            }
        }
        tasks.handed_over.add(0, &[]);
        for end in WatchTaskEnd::ALL {
            self.0.tasks.of_watches.add(0, &[KeyValue::new("outcome", end.as_str())]);
        }
    }

    fn count_settled(&self, acknowledged: u64, parked: &[ParkReason]) {
        self.0.settled.add(acknowledged, &[KeyValue::new("outcome", "acknowledged")]);
        self.0.settled.add(parked.len() as u64, &[KeyValue::new("outcome", "parked")]);
        let counted = &self.0.latest.samples.counted;
        counted.acknowledged.fetch_add(acknowledged, Relaxed);
        counted.parked.fetch_add(parked.len() as u64, Relaxed);
        for reason in parked {
            self.0.parked.add(1, &[KeyValue::new("reason", reason.as_str())]);
        }
    }

    /// The metrics of this process; without telemetry, metrics that no exporter reads.
    #[must_use]
    pub fn of_process() -> Self {
        let unread = || Self::new(Resource::builder_empty().build(), &[], |builder| builder);
        PROCESS.get_or_init(|| unread().expect("an empty registry takes one exporter")).clone()
    }

    /// The last survey, if it includes the numbers from rows.
    #[must_use]
    pub fn survey_of_rows(&self) -> Option<Survey> {
        self.0.latest.survey.lock().clone().filter(|survey| told(survey).is_some())
    }

    /// The last hour in numbers, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.0.latest.samples.all()
    }

    /// The last hour of an app in numbers, the oldest first.
    #[must_use]
    pub fn samples_of(&self, app: &AppId) -> Vec<AppSample> {
        self.0.latest.app_samples.of(app)
    }

    /// The last hour of a queue in numbers, the oldest first.
    #[must_use]
    pub fn samples_of_queue(&self, queue: &QueueName) -> Vec<QueueSample> {
        self.0.latest.queue_samples.of(queue)
    }

    /// Makes these the metrics of this process; `false`: it has others already.
    pub(super) fn install(&self) -> bool {
        PROCESS.set(self.clone()).is_ok()
    }

    /// All numbers in the text format of Prometheus.
    ///
    /// # Errors
    /// [`MetricsError`] when a number cannot be written.
    pub fn text(&self) -> Result<String, MetricsError> {
        let families = self.0.registry.gather();
        TextEncoder::new().encode_to_string(&families).map_err(|error| MetricsError(error.to_string()))
    }

    /// A request to the API was answered; `route` is its template, or `none`.
    pub fn requested(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let labels = [
            KeyValue::new("route", route.to_owned()),
            KeyValue::new("method", method),
            KeyValue::new("status", class(status)),
        ];
        self.0.http.record(took.as_secs_f64(), &labels);
    }

    /// A connection to the API is open while the answer lives.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.0.latest.connections.fetch_add(1, Relaxed);
        Connected(self.clone())
    }

    /// Sets the keyring whose keys are counted.
    pub fn keyring(&self, keyring: &Arc<Keyring>) {
        *self.0.latest.keyring.lock() = Arc::downgrade(keyring);
    }

    /// Sends the remaining data over OTLP. Blocks, so it must not run in an async task.
    pub(super) fn stop(&self, deadline: Duration) -> Result<(), opentelemetry_sdk::error::OTelSdkError> {
        self.0.provider.shutdown_with_timeout(deadline)
    }
}

/// Counts one open connection for as long as it lives.
pub struct Connected(Metrics);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.latest.connections.fetch_sub(1, Relaxed);
    }
}

impl Meter for Metrics {
    fn polled(&self, outcome: &'static str, took: Duration) {
        self.0.poll.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }

    fn fetched(&self, what: Fetched, fetched: Result<FetchReport, &'static str>, took: Duration) {
        let what = KeyValue::new("what", what.as_str());
        let outcome = KeyValue::new("outcome", fetched.err().unwrap_or("ok"));
        self.0.fetch.record(took.as_secs_f64(), &[what.clone(), outcome]);
        if let Ok(FetchReport { bytes, objects }) = fetched {
            self.0.fetch_bytes.add(bytes, std::slice::from_ref(&what));
            self.0.fetch_objects.add(objects, std::slice::from_ref(&what));
        }
    }

    fn scanned(&self, outcome: &'static str, took: Duration) {
        self.0.scan.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
        self.0.latest.samples.counted.scans.fetch_add(1, Relaxed);
    }

    fn waited(&self, took: Duration) {
        self.0.host_wait.record(took.as_secs_f64(), &[]);
    }

    fn status_told(&self, outcome: &'static str) {
        self.0.statuses.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    fn called_back(&self, outcome: &'static str) {
        self.0.callbacks.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    fn work_told(&self, outcome: &'static str) {
        self.0.work_told.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    fn attempted(&self, app: &AppId, kind: AttemptKind, outcome: &AttemptOutcome) {
        let labels =
            [KeyValue::new("kind", kind.as_str()), KeyValue::new("outcome", attempt_outcome(outcome))];
        self.0.attempt.record(outcome.took.as_secs_f64(), &labels);
        if !matches!(outcome.result, Ok(200..=299)) {
            self.0.latest.samples.counted.failed.fetch_add(1, Relaxed);
            self.0.latest.app_samples.count(app, 0, 1);
        }
    }

    fn settled(&self, app: &AppId, acknowledged: u64, parked: &[ParkReason]) {
        self.0.latest.app_samples.count(app, acknowledged, 0);
        self.count_settled(acknowledged, parked);
    }

    fn committed(&self, is_written: bool, verbs: usize, took: Duration) {
        let outcome = if is_written { "ok" } else { "failed" };
        self.0.commit.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
        self.0.verbs.add(verbs as u64, &[]);
    }

    fn tasks_moved(&self, tally: &TaskTally) {
        let tasks = &self.0.tasks;
        for (name, moved) in &tally.queues {
            self.0.latest.queue_samples.count(name, moved);
            let queue = self.0.queues.label(name);
            let of_queue = std::slice::from_ref(queue);
            tasks.created.add(moved.created, of_queue);
            tasks.claimed.add(moved.queued.len() as u64, of_queue);
            tasks.run_out.add(moved.run_out, of_queue);
            tasks.handed_over.add(moved.handed_over, &[]);
            moved.queued.iter().for_each(|queued| tasks.queued.record(queued.as_secs_f64(), of_queue));
            for (state, lived) in &moved.ended {
                let labels = [KeyValue::new("state", state.as_str()), queue.clone()];
                tasks.ended.add(1, &labels);
                tasks.duration.record(lived.as_secs_f64(), &labels);
            }
        }
        for (app, end) in &tally.of_watches {
            tasks.of_watches.add(1, &[KeyValue::new("outcome", end.as_str())]);
            // The end of such a task settles a change, as the answer of a receiver does.
            match end.parks() {
                Some(reason) => self.settled(app, 0, &[reason]),
                None => self.settled(app, u64::from(*end == WatchTaskEnd::Succeeded), &[]),
            }
        }
    }

    fn surveyed(&self, survey: Survey) {
        self.0.survey.record(survey.took.as_secs_f64(), &[]);
        self.0.latest.samples.take(&survey);
        self.0.latest.app_samples.take(&survey);
        self.0.latest.queue_samples.take(survey.at);
        *self.0.latest.survey.lock() = Some(survey);
    }
}

fn seconds(meter: &OtelMeter, of: &Instrument) -> Histogram<f64> {
    histogram(meter, of, &SECONDS)
}

fn histogram(meter: &OtelMeter, of: &Instrument, bounds: &[f64]) -> Histogram<f64> {
    let builder = meter.f64_histogram(of.name).with_description(of.help).with_unit(of.unit);
    builder.with_boundaries(bounds.to_vec()).build()
}

fn counter(meter: &OtelMeter, of: &Instrument) -> Counter<u64> {
    meter.u64_counter(of.name).with_description(of.help).with_unit(of.unit).build()
}

fn class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// Takes one value with its labels.
pub(super) type Take<'a> = &'a mut dyn FnMut(f64, &[KeyValue]);

/// A gauge, or a counter that is stored elsewhere; `read` returns its values on each scrape.
pub(super) fn observed(meter: &OtelMeter, of: &Instrument, read: impl Fn(Take<'_>) + Send + Sync + 'static) {
    let observe = move |observer: &dyn AsyncInstrument<f64>| {
        read(&mut |value, labels| observer.observe(value, labels));
    };
    if of.kind == list::Kind::Counter {
        let builder = meter.f64_observable_counter(of.name).with_description(of.help).with_unit(of.unit);
        let _lives_as_long_as_its_meter = builder.with_callback(observe).build();
    } else {
        let builder = meter.f64_observable_gauge(of.name).with_description(of.help).with_unit(of.unit);
        let _lives_as_long_as_its_meter = builder.with_callback(observe).build();
    }
}

#[cfg(test)]
mod tests;
