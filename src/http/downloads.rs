//! Limits on downloads of contents: memory for all of them, downloads of one app at once, one search of trees
//! at a time with one waiting per app, and a least rate of reading the answer.
//!
//! The memory is not that of deliveries: a slow client delays only other downloads, and only for a limited
//! time. Beyond a limit a request waits a little and is then told to come again.

use std::{
    collections::HashMap,
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
const WAIT: Duration = Duration::from_secs(10);
/// How many seconds a client should wait beyond a bound.
const RETRY_AFTER_SECONDS: u64 = 10;
/// The bytes that are passed to the connection at a time.
const PIECE_BYTES: usize = 64 << 10;
/// The time for reading an answer of any size ...
const READ_WITHIN: Duration = Duration::from_secs(30);
/// ... plus one second for this many bytes of it.
const BYTES_A_SECOND: usize = 256 << 10;

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
    /// Limits the contents in memory to `memory` bytes; a larger content is served alone.
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
    pub(super) fn begin(&self, app: &AppId) -> Result<Download, Problem> {
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
    pub(super) async fn search(&self, app: &AppId) -> Result<Turn<'_>, Problem> {
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

    /// Waits for memory for this many bytes, or for all of it if that is less.
    ///
    /// # Errors
    /// 503 when it is not free soon.
    pub(super) async fn memory(&self, bytes: u64) -> Result<MemoryPermit, Problem> {
        timeout(self.wait, self.memory.take(bytes)).await.map_err(|_late| busy())
    }
}

fn busy() -> Problem {
    Problem::new(Kind::CONTENT_UNAVAILABLE)
        .with_detail("other downloads take all memory for downloads now")
        .retry_after(RETRY_AFTER_SECONDS)
}

/// The turn to search trees, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'d> {
    _turn: SemaphorePermit<'d>,
    _own: OwnedSemaphorePermit,
}

/// One download of an app, from its request until its answer is sent.
pub(super) struct Download {
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
    pub(super) fn answer(self, content: Bytes, held: MemoryPermit) -> Response {
        let length = content.len();
        let pieces = Pieces { content, until: Instant::now() + longest_download(length), kept: (self, held) };
        let mut response = warp::reply::stream(stream::iter(pieces)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }
}

/// A content that is being sent. The connection asks for a piece when it has room, so slow readers are
/// noticed here; the listener closes connections that read nothing.
struct Pieces {
    content: Bytes,
    until: Instant,
    #[expect(dead_code, reason = "given back when the answer has gone")]
    kept: (Download, MemoryPermit),
}

/// The longest time for reading an answer of this many bytes.
fn longest_download(bytes: usize) -> Duration {
    READ_WITHIN + Duration::from_secs(u64::try_from(bytes / BYTES_A_SECOND).unwrap_or(u64::MAX))
}

impl Iterator for Pieces {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.content.is_empty() {
            return None;
        }
        if Instant::now() >= self.until {
            self.content.clear();
            return Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")));
        }
        Some(Ok(self.content.split_to(PIECE_BYTES.min(self.content.len()))))
    }
}

#[cfg(test)]
mod tests;
