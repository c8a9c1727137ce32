//! The sink `print`: a line on standard output for each change, for people or as the JSON body. A closed
//! standard output (`| head`) ends the command without an error. Another failure, such as a full disk, is
//! told to the command, and the change is tried again.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tidings_actors::ports::{Action, AttemptOutcome, ItemOutcome, Parcel, ParcelBody, SendFailure};
use tokio::sync::watch;
use tracing::warn;

use super::rendering::body::unchunked;

/// Prints the changes of `tidings watch` without `--to`.
pub struct Printer {
    json: bool,
    /// Held while a line is printed, so that lines do not mix.
    turn: Mutex<()>,
    /// Set when standard output is closed.
    gone: watch::Sender<bool>,
    /// Why the last change could not be printed.
    failed: watch::Sender<Option<String>>,
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
    /// Prints bodies (`json`) or lines for people; `gone` is set when standard output is closed, `failed`
    /// when a change cannot be printed for another reason.
    #[must_use]
    pub fn new(json: bool, gone: watch::Sender<bool>, failed: watch::Sender<Option<String>>) -> Self {
        Self { json, turn: Mutex::new(()), gone, failed }
    }

    /// Prints changes one after another, up to the first that cannot be printed.
    pub(super) fn print_all(&self, parcels: &[Parcel]) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let mut items = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            if let Err(error) = self.print(parcel) {
                let why = format!("standard output cannot be written: {error}");
                if error.kind() == io::ErrorKind::BrokenPipe {
                    // Only this command ends: a kept data directory continues with the next run.
                    self.gone.send_replace(true);
                } else {
                    // The command shows no lines about attempts, and without `--once` tells nothing itself.
                    warn!("{why}; the change is printed again later");
                    self.failed.send_replace(Some(why.clone()));
                }
                return (outcome(Err(SendFailure::Connection), &why), items);
            }
            items.push(ItemOutcome::Accepted);
        }
        (outcome(Ok(200), ""), items)
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

/// The body of a chunked file as one object: a terminal needs no chunks.
pub(super) fn whole_body(body: &ParcelBody) -> Bytes {
    match body {
        ParcelBody::Whole(body) => body.clone(),
        ParcelBody::Chunked { before, content, after } => unchunked(before, content, after),
    }
}

/// A text for a terminal: a path may hold anything, and a terminal gets no control characters from it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn line(action: Action, body: &[u8]) -> io::Result<String> {
    let shown: Shown = serde_json::from_slice(body)?;
    let target: Target = serde_json::from_slice(body)?;
    let sign = match action {
        Action::Create => '+',
        Action::Delete => '-',
        _ => '~',
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

/// The outcome of an attempt that sends no request.
pub(super) fn outcome(result: Result<u16, SendFailure>, excerpt: &str) -> AttemptOutcome {
    AttemptOutcome {
        result,
        retry_after: None,
        excerpt: excerpt.to_owned(),
        took: Duration::ZERO,
        answer: None,
    }
}

/// The outcome of an attempt at a sink that this process cannot reach.
pub(super) fn nowhere() -> (AttemptOutcome, Vec<ItemOutcome>) {
    let text = "changes of this sink are printed by tidings watch, or claimed by a consumer; nothing is sent";
    (outcome(Err(SendFailure::InvalidUrl), text), Vec::new())
}
