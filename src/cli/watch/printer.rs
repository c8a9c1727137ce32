//! A transport that prints: renders like the one that sends, but "delivers" to standard output. A
//! reader that went away (`| head`) ends the command quietly.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tidings_actors::{
    ports::{
        Action, AttemptOutcome, DeliveryOrder, Endpoint, ItemOutcome, Notice, Parcel, ParcelBody,
        PrepareError, Remote, SendFailure, Transport,
    },
    round::{Change, RoundSpec},
    shards::Hold,
};
use tokio::sync::watch;

/// The transport of `tidings watch` without `--to`.
pub(super) struct Printer {
    webhooks: Arc<dyn Transport>,
    json: bool,
    /// One line at a time, whoever prints.
    turn: Mutex<()>,
    /// Set when the reader of standard output went away.
    gone: watch::Sender<bool>,
}

/// The parts of a body that a line for people shows.
#[derive(Deserialize)]
struct Shown {
    file: File,
    event: Event,
}

#[derive(Deserialize)]
struct File {
    path: String,
    size: Option<u64>,
    renamed_from: Option<String>,
    content_omitted: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    branch: String,
    commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    subject: String,
}

#[derive(Deserialize)]
struct Target {
    commit_sha: String,
}

impl Printer {
    pub(super) fn new(webhooks: Arc<dyn Transport>, json: bool, gone: watch::Sender<bool>) -> Self {
        Self { webhooks, json, turn: Mutex::new(()), gone }
    }

    fn print(&self, parcel: &Parcel) -> io::Result<()> {
        let body = whole_body(&parcel.body);
        let line = if self.json { body.to_vec() } else { line(parcel.action, &body)?.into_bytes() };
        let _turn = self.turn.lock();
        let mut output = io::stdout().lock();
        output.write_all(&line)?;
        output.write_all(b"\n")?;
        output.flush()
    }
}

/// The body of a chunked file as one object: nothing has to be cut for a terminal.
fn whole_body(body: &ParcelBody) -> Bytes {
    match body {
        ParcelBody::Whole(body) => body.clone(),
        ParcelBody::Chunked { before, content, after } => {
            crate::webhook::body::unchunked(before, content, after)
        }
    }
}

fn line(action: Action, body: &[u8]) -> io::Result<String> {
    let shown: Shown = serde_json::from_slice(body)?;
    let target: Target = serde_json::from_slice(body)?;
    let sign = match action {
        Action::Create => '+',
        Action::Delete => '-',
        _ => '~',
    };
    // A path may hold anything; a terminal gets no control characters from it.
    let plain = |text: &str| {
        text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect::<String>()
    };
    let size = match (shown.file.size, shown.file.content_omitted) {
        (Some(size), None) => format!("  {size} B"),
        (Some(size), Some(why)) => format!("  {size} B, {why}"),
        (None, _) => String::new(),
    };
    let renamed = shown.file.renamed_from.map(|from| format!("  from {}", plain(&from))).unwrap_or_default();
    let subject =
        shown.event.commit.map(|commit| format!("  {}", plain(&commit.subject))).unwrap_or_default();
    let commit = target.commit_sha.get(..8).unwrap_or(&target.commit_sha);
    let (path, branch) = (plain(&shown.file.path), plain(&shown.event.branch));
    Ok(format!("{sign} {path}{size}{renamed}  [{branch} {commit}]{subject}"))
}

#[async_trait]
impl Transport for Printer {
    async fn foresee(&self, remote: &Remote, spec: &RoundSpec, changes: &[Change]) {
        self.webhooks.foresee(remote, spec, changes).await;
    }

    async fn prepare(&self, orders: &Arc<[DeliveryOrder]>, budget: u64) -> Result<Vec<Parcel>, PrepareError> {
        self.webhooks.prepare(orders, budget).await
    }

    async fn send(&self, _endpoint: &Endpoint, parcel: &Parcel, _hold: &Hold) -> Option<AttemptOutcome> {
        let result = match self.print(parcel) {
            Ok(()) => Ok(200),
            Err(error) => {
                if error.kind() == io::ErrorKind::BrokenPipe {
                    // Only this command ends: a kept data directory goes on with the next reader.
                    self.gone.send_replace(true);
                }
                Err(SendFailure::Connection)
            }
        };
        Some(AttemptOutcome {
            result,
            retry_after: None,
            excerpt: String::new(),
            took: Duration::ZERO,
            answer: None,
        })
    }

    async fn send_batch(
        &self,
        endpoint: &Endpoint,
        parcels: Vec<Parcel>,
        hold: &Hold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let mut items = Vec::with_capacity(parcels.len());
        let mut outcome = AttemptOutcome {
            result: Ok(200),
            retry_after: None,
            excerpt: String::new(),
            took: Duration::ZERO,
            answer: None,
        };
        for parcel in &parcels {
            let Some(sent) = self.send(endpoint, parcel, hold).await else { break };
            outcome = sent;
            if !outcome.is_success() {
                break;
            }
            items.push(ItemOutcome::Accepted);
        }
        (outcome, items)
    }

    async fn notify(&self, _endpoint: &Endpoint, _notice: &Notice) -> AttemptOutcome {
        // What a notice says is in the log already.
        AttemptOutcome {
            result: Ok(204),
            retry_after: None,
            excerpt: String::new(),
            took: Duration::ZERO,
            answer: None,
        }
    }
}
