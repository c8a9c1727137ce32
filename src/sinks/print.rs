//! The sink `print`: a line on standard output for each change, for people or as the JSON body. A closed
//! standard output (`| head`) ends the command without an error.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tidings_actors::ports::{Action, AttemptOutcome, ItemOutcome, Parcel, ParcelBody, SendFailure};
use tokio::sync::watch;

use super::rendering::body::unchunked;

/// Prints the changes of `tidings watch` without `--to`.
pub struct Printer {
    json: bool,
    /// Held while a line is printed, so that lines do not mix.
    turn: Mutex<()>,
    /// Set when standard output is closed.
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
    /// Prints bodies (`json`) or lines for people; `gone` is set when standard output is closed.
    #[must_use]
    pub fn new(json: bool, gone: watch::Sender<bool>) -> Self {
        Self { json, turn: Mutex::new(()), gone }
    }

    /// Prints changes one after another, up to the first that cannot be printed.
    pub(super) fn print_all(&self, parcels: &[Parcel]) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let mut items = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            if let Err(error) = self.print(parcel) {
                if error.kind() == io::ErrorKind::BrokenPipe {
                    // Only this command ends: a kept data directory continues with the next run.
                    self.gone.send_replace(true);
                }
                return (outcome(Err(SendFailure::Connection), ""), items);
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
