//! Limits on downloads of contents: memory for all of them, downloads of one app at once, one search of trees
//! at a time with one waiting per app, and a least rate of reading the answer.
//!
//! The memory is not that of deliveries. Apps share it as deliveries do (`Budget`), so a slow client delays
//! only downloads of large contents, and each of them for a limited time: once another app waits, the least
//! rate is higher. Beyond a limit a request waits a little and is then told to come again.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use tidings_actors::limits::budget::{Budget, MemoryPermit};
use tidings_entity::id::AppId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};
use warp::reply::{Reply, Response};

use crate::http::bodies::problem::{Kind, Problem};

/// Downloads of one app at once, waiting or running.
const PER_APP: usize = 4;
/// How long a request waits for its turn and for memory.
const WAIT: Duration = Duration::from_secs(30);
/// How many seconds a client should wait beyond a bound.
const RETRY_AFTER_SECONDS: u64 = 10;
/// The bytes that are passed to the connection at a time.
const PIECE_BYTES: usize = 64 << 10;
/// The time for reading an answer of any size, to which [`BYTES_A_SECOND`] adds.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The bytes of an answer for which its client gets one more second.
const BYTES_A_SECOND: usize = 256 << 10;
/// The same, once another app waits for the memory.
const AWAITED_BYTES_A_SECOND: usize = 4 << 20;

/// The limits of one process.
pub struct Downloads {
    memory: Budget,
    searches: Semaphore,
    /// The turn of each app that searches or waits to search.
    searching: Mutex<HashMap<AppId, Weak<Semaphore>>>,
    wait: Duration,
    apps: Arc<Mutex<HashMap<AppId, usize>>>,
}

impl Downloads {
    /// Limits the contents in memory to `memory` bytes, and one larger content beside them.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self {
            memory: Budget::new(memory),
            searches: Semaphore::new(1),
            searching: Mutex::default(),
            wait: WAIT,
            apps: Arc::default(),
        }
    }

    /// Counts one more download of an app.
    ///
    /// # Errors
    /// 429 when the app's limit is reached.
    pub(in crate::http) fn begin(&self, app: &AppId) -> Result<Download, Problem> {
        let mut apps = self.apps.lock();
        let count = apps.entry(app.clone()).or_default();
        if *count >= PER_APP {
            return Err(Problem::new(Kind::TOO_MANY)
                .with_detail(format!("an app has at most {PER_APP} downloads at once"))
                .retry_after(RETRY_AFTER_SECONDS));
        }
        *count += 1;
        Ok(Download { app: app.clone(), apps: Arc::clone(&self.apps) })
    }

    /// Waits for the turn to search trees. Each app has at most one search in the line, so an app waits for
    /// at most one search of each other app.
    ///
    /// # Errors
    /// 503 when the turn does not come soon.
    pub(in crate::http) async fn search(&self, app: &AppId) -> Result<Turn<'_>, Problem> {
        let own = self.of_app(app);
        let both = async {
            let own = own.acquire_owned().await.expect("the semaphore is never closed");
            Turn { _own: own, _turn: self.searches.acquire().await.expect("the semaphore is never closed") }
        };
        timeout(self.wait, both).await.map_err(|_late| busy())
    }

    fn of_app(&self, app: &AppId) -> Arc<Semaphore> {
        let mut searching = self.searching.lock();
        if let Some(own) = searching.get(app).and_then(Weak::upgrade) {
            return own;
        }
        searching.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        searching.insert(app.clone(), Arc::downgrade(&own));
        own
    }

    /// Waits for memory for this many bytes.
    ///
    /// # Errors
    /// 503 when it is not free soon.
    pub(in crate::http) async fn memory(&self, app: &AppId, bytes: u64) -> Result<MemoryPermit, Problem> {
        timeout(self.wait, self.memory.take(app, bytes)).await.map_err(|_late| busy())
    }
}

fn busy() -> Problem {
    Problem::new(Kind::CONTENT_UNAVAILABLE)
        .with_detail("other downloads take the memory for downloads now")
        .retry_after(RETRY_AFTER_SECONDS)
}

/// The turn to search trees, until it is dropped.
#[derive(Debug)]
pub(in crate::http) struct Turn<'d> {
    _turn: SemaphorePermit<'d>,
    _own: OwnedSemaphorePermit,
}

/// One download of an app, from its request until its answer is sent.
pub(in crate::http) struct Download {
    app: AppId,
    apps: Arc<Mutex<HashMap<AppId, usize>>>,
}

impl Drop for Download {
    fn drop(&mut self) {
        let mut apps = self.apps.lock();
        if let Some(count) = apps.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                apps.remove(&self.app);
            }
        }
    }
}

impl Download {
    /// The answer with this content; it holds the memory and its place until it is sent or has taken too
    /// long.
    pub(in crate::http) fn answer(self, content: Bytes, held: MemoryPermit) -> Response {
        let mut response = in_pieces(vec![content], vec![Arc::new(held)], Some(self));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// An answer of these parts, one after another. It holds the memory of its parts, and the place of a
/// download, until it is sent or has taken too long.
pub(in crate::http) fn in_pieces(
    parts: Vec<Bytes>,
    held: Vec<Arc<MemoryPermit>>,
    download: Option<Download>,
) -> Response {
    let (now, length) = (Instant::now(), parts.iter().map(Bytes::len).sum::<usize>());
    let pieces = Pieces {
        parts: parts.into(),
        until: now + longest_answer(length, BYTES_A_SECOND),
        yields_from: now + longest_answer(length, AWAITED_BYTES_A_SECOND),
        held,
        _download: download,
    };
    let mut response = warp::reply::stream(stream::iter(pieces)).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// An answer that is being sent. The connection asks for a piece when it has room, so slow readers are
/// noticed here; the listener closes connections that read nothing.
struct Pieces {
    parts: VecDeque<Bytes>,
    until: Instant,
    /// From this moment on the answer is broken off if another app waits for its memory.
    yields_from: Instant,
    held: Vec<Arc<MemoryPermit>>,
    _download: Option<Download>,
}

/// The longest time for reading an answer of this many bytes at this rate.
fn longest_answer(bytes: usize, bytes_a_second: usize) -> Duration {
    READ_WITHIN + Duration::from_secs(u64::try_from(bytes / bytes_a_second).unwrap_or(u64::MAX))
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.parts.front().is_some_and(Bytes::is_empty) {
            self.parts.pop_front();
        }
        let part = self.parts.front_mut()?;
        let now = Instant::now();
        let yields = now >= self.yields_from && self.held.iter().any(|held| held.is_awaited());
        if now >= self.until || yields {
            self.parts.clear();
            return Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")));
        }
        Some(Ok(part.split_to(PIECE_BYTES.min(part.len()))))
    }
}

#[cfg(test)]
mod tests;
