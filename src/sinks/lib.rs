//! Deliveries as webhooks: implements [`Transport`].
//!
//! Each sink that changes are sent to is one file: `push` (requests to a web address), `stream` (messages of
//! NATS), `print` (lines on a terminal) or in its place `exec` (a program of the user). They share the
//! rendering (`rendering`) and the parts of every attempt (`attempt`).
//!
//! Preparing reads contents through [`GitSource`], hashes contents without a stored hash and renders the
//! body; sending signs the body for each attempt and passes it to the sink. A body's bytes never change over
//! retries, except for the id of chunks.

mod access;
mod answer;
mod attempt;
pub mod exec;
mod kept;
pub mod mail;
pub mod nats;
pub mod print;
mod push;
mod rendering;
pub mod signature;
mod spelling;
mod stream;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tidings_actors::{
    model::round::{Change, DeliveryId, RoundSpec},
    model::sink::SinkAddress,
    ownership::shards::ShardHold,
    ports::{
        Action, AttemptKind, AttemptOutcome, Clock, DeliveryOrder, Endpoint, Fetched, GitError, GitSource,
        ItemOutcome, LaneFacts, MailOutcome, Meter, Notice, Parcel, PrepareError, Random, Remote, Seek,
        Store, SubscriptionMessage, Transport,
    },
};
use tidings_egress::Egress;
use tidings_entity::{id::AppId, kind::PayloadFormat};
use tokio::time::Instant;
use tracing::{debug, info};

pub use answer::excerpt;
use attempt::Attempt;
use exec::Exec;
use mail::Mailer;
use nats::Nats;
use print::Printer;
use push::{Push, Pushing};
pub use rendering::body;
pub use rendering::entry::EntryShown;
use rendering::{
    body::Shared,
    hashes::Hashes,
    material::{self, Gathered},
    notice,
};
use stream::Publishing;

/// If contents must be fetched, those of this many changes beyond the window are fetched with them.
const CHANGES_AHEAD: usize = 3_840;

/// The body of a notice.
#[must_use]
pub fn notice_body(notice: &Notice, format: PayloadFormat) -> Bytes {
    notice::render(notice, format).body
}

/// Returns the `traceparent` of the running span, if there is one.
pub type Traceparent = fn() -> Option<String>;

/// What happens to the changes of the sink `print` in this process.
pub enum Terminal {
    /// Each change is printed.
    Prints(Printer),
    /// A program is run.
    Runs(Exec),
}

/// Signed webhooks through the guarded client.
pub struct Webhooks {
    push: Push,
    nats: Nats,
    mailer: Mailer,
    terminal: Option<Terminal>,
    git: Arc<dyn GitSource>,
    store: Arc<dyn Store>,
    hashes: Hashes,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    traceparent: Traceparent,
    keeps_all: bool,
    chunk_threshold: usize,
    meter: Option<Arc<dyn Meter>>,
}

impl Webhooks {
    /// Builds the transport from the adapters that it uses.
    #[must_use]
    pub fn new(
        egress: Egress,
        git: Arc<dyn GitSource>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let hashes = Hashes::new(Arc::clone(&store), Arc::clone(&clock));
        Self {
            nats: Nats::new(egress.clone()),
            mailer: Mailer::new(egress.clone(), None),
            push: Push::new(egress),
            terminal: None,
            git,
            store,
            hashes,
            clock,
            random,
            traceparent: || None,
            keeps_all: false,
            chunk_threshold: body::CHUNK_THRESHOLD,
            meter: None,
        }
    }

    /// Sends mails with `mailer`; without one every mail fails with a reason.
    #[must_use]
    pub fn mailing(mut self, mailer: Mailer) -> Self {
        self.mailer = mailer;
        self
    }

    /// Prints changes for the sink `print`, or runs a program, if this process has a terminal.
    #[must_use]
    pub fn at_terminal(mut self, terminal: Option<Terminal>) -> Self {
        self.terminal = terminal;
        self
    }

    /// Sends the value of `traceparent` with every request.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: Traceparent) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// Sends binary files of more than `bytes` bytes in chunks.
    #[must_use]
    pub fn chunked_above(mut self, bytes: usize) -> Self {
        self.chunk_threshold = bytes;
        self
    }

    /// Measures every attempt, and the blobs that rounds of narrow watches fetch.
    #[must_use]
    pub fn with_meter(mut self, meter: Arc<dyn Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    fn measured(&self, app: &AppId, kind: AttemptKind, outcome: AttemptOutcome) -> AttemptOutcome {
        if let Some(meter) = &self.meter {
            meter.attempted(app, kind, &outcome);
        }
        outcome
    }

    /// Stores the answers of acknowledgements as well, because every attempt is recorded.
    #[must_use]
    pub fn keeping_all(mut self, keeps_all: bool) -> Self {
        self.keeps_all = keeps_all;
        self
    }

    async fn look_up(&self, changes: &[Change]) {
        self.hashes.prefetch(material::blobs_of(changes.iter())).await;
    }

    /// If contents of these changes are missing, fetches them together with those of the next changes: one
    /// request for many windows.
    async fn bring(&self, remote: &Remote, spec: &RoundSpec, changes: &[Change]) -> Result<(), PrepareError> {
        let mut blobs = material::needed(&self.hashes, spec, changes).await?;
        let Some(last) = changes.last() else { return Ok(()) };
        if blobs.is_empty() || self.git.absent_blobs(remote, &blobs).await?.is_empty() {
            return Ok(());
        }
        let next = Seek::After(last.clone());
        // The trees of a lost mirror may be gone too; then only these changes are fetched.
        let ahead = self.git.window(remote, spec, &next, CHANGES_AHEAD).await.unwrap_or_default();
        self.look_up(&ahead).await;
        blobs.extend(material::needed(&self.hashes, spec, &ahead).await?);
        let began = Instant::now();
        let fetched = self.git.fetch_blobs(remote, &blobs).await;
        if let Some(meter) = &self.meter {
            let report = fetched.as_ref().map(|report| report.fetched).map_err(GitError::code);
            meter.fetched(Fetched::Contents, report, began.elapsed());
        }
        let report = fetched?;
        info!(
            repository.id = %remote.repository,
            fetch.bytes = report.fetched.bytes,
            fetch.objects = report.fetched.objects,
            "fetched {} contents in {} bytes",
            report.fetched.objects,
            report.fetched.bytes
        );
        Ok(())
    }

    fn attempt<'a>(&'a self, endpoint: &'a Endpoint) -> Attempt<'a> {
        Attempt {
            clock: &*self.clock,
            random: &*self.random,
            endpoint,
            traceparent: (self.traceparent)(),
            keeps_all: self.keeps_all,
        }
    }

    fn pushing<'a>(&'a self, endpoint: &'a Endpoint, base_url: &'a str) -> Pushing<'a> {
        self.push.to(base_url, self.attempt(endpoint))
    }

    fn publishing<'a>(&'a self, endpoint: &'a Endpoint, address: &'a str) -> Publishing<'a> {
        Publishing { nats: &self.nats, address, attempt: self.attempt(endpoint) }
    }

    async fn printed(&self, parcels: &[Parcel]) -> (AttemptOutcome, Vec<ItemOutcome>) {
        match &self.terminal {
            Some(Terminal::Prints(printer)) => printer.print_all(parcels),
            Some(Terminal::Runs(exec)) => exec.run_each(parcels).await,
            None => print::nowhere(),
        }
    }
}

#[async_trait]
impl Transport for Webhooks {
    async fn prefetch(&self, remote: &Remote, spec: &RoundSpec, changes: &[Change]) {
        self.look_up(changes).await;
        if material::is_narrow(spec)
            && let Err(error) = self.bring(remote, spec, changes).await
        {
            debug!(%error, "contents of a window were not brought at once");
        }
    }

    async fn prepare(&self, orders: &Arc<[DeliveryOrder]>, budget: u64) -> Result<Vec<Parcel>, PrepareError> {
        let gathered = material::gather(&*self.git, &self.hashes, orders, budget).await?;
        let size = gathered.iter().map(Gathered::size).sum();
        // The contents of payloads are small, and nobody puts chunks of them together.
        let is_payload = orders.first().is_some_and(|order| order.lane.inline_max.is_some());
        let chunk_threshold = if is_payload { usize::MAX } else { self.chunk_threshold };
        let orders = Arc::clone(orders);
        let render = move || {
            let gathered = material::within(gathered, budget, chunk_threshold)?;
            let (mut learned, mut shared) = (Vec::new(), None);
            let parcel = |(gathered, order): (Gathered, &DeliveryOrder)| Parcel {
                id: order.id.clone(),
                action: Action::from(order.change.operation),
                watch: order.lane.repository.repository_id.clone(),
                format: order.lane.round.format,
                body: body::render(
                    order,
                    // All orders are of one lane.
                    shared.get_or_insert_with(|| Shared::of(&order.lane)),
                    &gathered.into_material(&mut learned),
                    chunk_threshold,
                ),
                held: None,
            };
            let parcels: Vec<Parcel> = gathered.into_iter().zip(orders.iter()).map(parcel).collect();
            Ok::<_, PrepareError>((parcels, learned))
        };
        let (parcels, learned) = material::off_thread(size, render).await?;
        self.hashes.learn(&learned).await;
        Ok(parcels)
    }

    fn round_body(&self, lane: &LaneFacts, id: &DeliveryId, changes: &[Change]) -> String {
        rendering::round::render(lane, id, changes)
    }

    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel, hold: &ShardHold) -> Option<AttemptOutcome> {
        // Futures for rare sinks are boxed: otherwise every request would have their size.
        let outcome = match &endpoint.address {
            SinkAddress::Endpoint(base_url) => {
                attempt::deliver(&self.pushing(endpoint, base_url), parcel, hold).await?
            }
            SinkAddress::Stream(address) => {
                Box::pin(async { attempt::deliver(&self.publishing(endpoint, address), parcel, hold).await })
                    .await?
            }
            SinkAddress::Print => Box::pin(self.printed(std::slice::from_ref(parcel))).await.0,
            SinkAddress::Pull | SinkAddress::Mail(_) | SinkAddress::Tasks(_) => print::nowhere().0,
        };
        Some(self.measured(&endpoint.app, AttemptKind::Change, outcome))
    }

    async fn send_batch(
        &self,
        endpoint: &Endpoint,
        parcels: Vec<Parcel>,
        hold: &ShardHold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let (outcome, words) = match &endpoint.address {
            SinkAddress::Endpoint(base_url) => {
                self.pushing(endpoint, base_url).deliver_together(parcels).await
            }
            SinkAddress::Stream(address) => {
                self.publishing(endpoint, address).publish_each(&parcels, hold).await
            }
            SinkAddress::Print => Box::pin(self.printed(&parcels)).await,
            SinkAddress::Pull | SinkAddress::Mail(_) | SinkAddress::Tasks(_) => print::nowhere(),
        };
        (self.measured(&endpoint.app, AttemptKind::Batch, outcome), words)
    }

    async fn mail(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        is_last: bool,
        hold: &ShardHold,
    ) -> Option<MailOutcome> {
        let turn = self.mailer.turns.take_under(&endpoint.app, hold).await?;
        let sent = self.mailer.send(endpoint, message, is_last, self.clock.now()).await;
        drop(turn);
        let attempt = self.measured(&endpoint.app, AttemptKind::Mail, sent.attempt);
        Some(MailOutcome { attempt, ..sent })
    }

    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome {
        if let (SinkAddress::Mail(_), Notice::OfSubscription(message)) = (&endpoint.address, notice) {
            // A person waits for the answer, so the attempt is not repeated.
            let attempt = self.mailer.send_at_once(endpoint, message, self.clock.now()).await;
            return self.measured(&endpoint.app, AttemptKind::Mail, attempt);
        }
        let letter = notice::render(notice, endpoint.format);
        let outcome = match &endpoint.address {
            SinkAddress::Endpoint(base_url) => {
                attempt::notify(&self.pushing(endpoint, base_url), letter).await
            }
            SinkAddress::Stream(address) => {
                attempt::notify(&self.publishing(endpoint, address), letter).await
            }
            SinkAddress::Print => match &self.terminal {
                Some(Terminal::Runs(exec)) => Box::pin(exec.notify(&*self.git, &*self.store, notice)).await,
                // The content of a notice is in the log already.
                _ => print::outcome(Ok(204), ""),
            },
            SinkAddress::Pull | SinkAddress::Mail(_) | SinkAddress::Tasks(_) => print::nowhere().0,
        };
        self.measured(&endpoint.app, AttemptKind::Notice, outcome)
    }
}
