//! The frame of every tail of server-sent events. The events come from a [`News`]; the frame sends the
//! greeting, waits, keeps the connection alive, and ends when the server stops or the caller may no longer
//! read: its token was revoked or has expired.
//!
//! A tail looks for news once a second. It computes the next piece when its reader has read the previous one,
//! so a slow reader costs the memory of one piece. The listener closes connections whose client reads
//! nothing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use tidings_entity::id::AppId;
use tokio::time::{Instant, sleep};
use tracing::info;
use warp::reply::{Reply, Response};

use crate::http::{
    bodies::problem::Problem,
    door::{
        access::Access,
        lifecycle::Lifecycle,
        places::Places,
        quota::QuotaShare,
        request::{Recheck, Request},
    },
};

/// How often a tail looks for news.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the rights of the caller are checked again.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// How long it waits after something failed.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest silence before a comment is sent: proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The header that names the last event that was seen.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The source of a tail's events.
#[async_trait]
pub(crate) trait News: Send + 'static {
    /// The next piece, if something happened.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem>;
    /// Looking failed, for the first time in a row or again; whether the tail ends. Otherwise it looks again
    /// after a pause.
    fn ends_by(&mut self, problem: &Problem, is_first: bool) -> bool;
    /// The subject of the tail, for the log.
    fn subject(&self) -> String;
}

/// Counts a tail of its caller; the tails of the staff do not count for an app.
///
/// # Errors
/// 429 when the limit of the caller, or of all callers together, is reached.
pub(crate) fn place(places: &Places, request: &Request, app: &AppId) -> Result<QuotaShare, Problem> {
    let owner = if request.access.is_of_apps() { app.as_str() } else { &request.actor };
    places.tail(owner)
}

/// The streaming answer: the events of `news`, as long as the caller may read them.
pub(crate) fn answer(
    news: impl News,
    lifecycle: &Lifecycle,
    share: QuotaShare,
    request: &Request,
) -> Response {
    let now = Instant::now();
    let tail = Tail {
        news,
        lifecycle: lifecycle.clone(),
        recheck: request.recheck.clone(),
        headers: request.headers.clone(),
        access: request.access,
        client: request.client,
        checked_at: now,
        said_at: now,
        look_after: now,
        is_greeted: false,
        failures: Failures::default(),
        _share: share,
    };
    let pieces = stream::unfold(tail, |mut tail| async move {
        let piece = tail.next().await?;
        tail.said_at = Instant::now();
        Some((Ok::<Bytes, std::io::Error>(piece), tail))
    });
    // A body must be `Sync`. Only its connection polls it, so the lock is never contended.
    let mut pieces = Mutex::new(Box::pin(pieces));
    let pieces = stream::poll_fn(move |context| pieces.get_mut().as_mut().poll_next(context));
    let mut response: Response = warp::reply::stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A tail that is being written to its reader.
struct Tail<N> {
    news: N,
    lifecycle: Lifecycle,
    recheck: Arc<dyn Recheck>,
    /// The headers of the request, to check the caller again.
    headers: HeaderMap,
    access: Access,
    client: IpAddr,
    checked_at: Instant,
    said_at: Instant,
    /// After a failure it looks no earlier.
    look_after: Instant,
    is_greeted: bool,
    failures: Failures,
    _share: QuotaShare,
}

impl<N: News> Tail<N> {
    /// Waits for the next event; `None`: the tail ends.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.is_greeted {
            // The greeting sends the head of the answer, so the reader knows that the tail works.
            self.is_greeted = true;
            return Some(Bytes::from_static(b": tail\n\n"));
        }
        loop {
            if self.lifecycle.is_draining() || self.is_refused(CHECK_EVERY).await {
                return None;
            }
            if Instant::now() >= self.look_after {
                match self.news.next().await {
                    Ok(piece) => {
                        if self.failures.are_over() {
                            info!("a tail of {} goes on", self.news.subject());
                        }
                        // A token that was revoked gets no entry any more.
                        if piece.is_some() {
                            return if self.is_refused(Duration::ZERO).await { None } else { piece };
                        }
                    }
                    Err(problem) => {
                        if self.news.ends_by(&problem, self.failures.is_first()) {
                            return None;
                        }
                        self.look_after = Instant::now() + PAUSE;
                    }
                }
            }
            if self.said_at.elapsed() >= KEEP_ALIVE {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the caller may no longer read the tail; checked if the last check is at least `age` old. While
    /// that cannot be checked the tail continues: then nothing can be read either.
    async fn is_refused(&mut self, age: Duration) -> bool {
        if self.checked_at.elapsed() < age {
            return false;
        }
        self.checked_at = Instant::now();
        let checked = self.recheck.check(self.access, &self.headers, self.client).await;
        checked.is_err_and(|problem| problem.status().is_client_error())
    }
}

/// Failures in a row. The read is repeated every few seconds; only the first failure is logged.
#[derive(Default)]
struct Failures {
    is_told: bool,
}

impl Failures {
    fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// Ends the row of failures. Returns whether there were any.
    fn are_over(&mut self) -> bool {
        std::mem::take(&mut self.is_told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_logged_once() {
        let mut failures = Failures::default();
        assert!(!failures.are_over());
        assert!(failures.is_first());
        assert!(!failures.is_first() && !failures.is_first());
        assert!(failures.are_over() && !failures.are_over());
        assert!(failures.is_first(), "the next ones are others");
    }
}
