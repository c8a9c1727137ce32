//! A body that a handler reads part by part. Its sender must keep a least rate: the time for the body is
//! `server.body_timeout`, and one second more for each `BYTES_A_SECOND` bytes that have arrived.

use std::{pin::Pin, time::Duration};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::http::bodies::problem::{Kind, Problem};

/// The least rate of a sender over more than `server.body_timeout`.
const BYTES_A_SECOND: u64 = 16 << 10;

type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Problem>> + Send>>;

/// The body of a request, until its handler takes it. Only routes that stream have one.
#[derive(Default)]
pub struct Incoming(Mutex<Option<Parts>>);

impl Incoming {
    /// The body with these parts.
    pub(super) fn of<S, B>(body: S) -> Self
    where
        S: Stream<Item = Result<B, warp::Error>> + Send + 'static,
        B: Buf + 'static,
    {
        let parts = body.map(|part| match part {
            Ok(mut part) => Ok(part.copy_to_bytes(part.remaining())),
            Err(_) => Err(closing(Problem::malformed("the body ended before its end"))),
        });
        Self(Mutex::new(Some(Box::pin(parts))))
    }

    /// The body, for the one that reads it. It must have arrived within `longest`, however large it is.
    ///
    /// # Errors
    /// 500 if it was taken before, which is a defect.
    pub(crate) fn take(&self, timeout: Duration, longest: Duration) -> Result<Arriving, Problem> {
        let parts = self.0.lock().take().ok_or_else(|| Problem::new(Kind::INTERNAL))?;
        let began = Instant::now();
        Ok(Arriving { parts, until: began + timeout, last: began + longest, count: 0 })
    }
}

/// A body that arrives.
pub(crate) struct Arriving {
    parts: Parts,
    until: Instant,
    last: Instant,
    count: u64,
}

impl Arriving {
    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// 400 if the client broke off, 408 if it sends too slowly. The connection is closed after both.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let until = self.until + Duration::from_secs(self.count / BYTES_A_SECOND);
        match timeout_at(until.min(self.last), self.parts.next()).await {
            Ok(Some(part)) => {
                let part = part?;
                self.count += part.len() as u64;
                Ok(Some(part))
            }
            Ok(None) => Ok(None),
            Err(_late) => {
                Err(closing(Problem::new(Kind::TIMEOUT).with_detail("the body did not arrive in time")))
            }
        }
    }
}

/// The problem, after which the connection is closed: the rest of the body is not read.
pub(crate) fn closing(problem: Problem) -> Problem {
    problem.with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn parts(sizes: &[(u64, usize)]) -> Parts {
        let sizes = sizes.to_vec();
        Box::pin(stream::iter(sizes).then(|(wait, size)| async move {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            Ok(Bytes::from(vec![0; size]))
        }))
    }

    async fn read(sizes: &[(u64, usize)], longest: u64) -> Result<u64, u16> {
        let incoming = Incoming(Mutex::new(Some(parts(sizes))));
        let taken = incoming.take(Duration::from_secs(30), Duration::from_secs(longest));
        let mut arriving = taken.unwrap_or_else(|_| panic!("it is there"));
        assert!(incoming.take(Duration::ZERO, Duration::ZERO).is_err(), "it is read once");
        loop {
            match arriving.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(arriving.count),
                Err(problem) => return Err(problem.status().as_u16()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_long_if_it_comes_at_a_least_rate() {
        let a_second = 16 << 10;
        assert_eq!(read(&[(29, a_second)], 9_999).await, Ok(16 << 10));
        assert_eq!(read(&[(31, a_second)], 9_999).await, Err(408), "nothing came for too long");
        let steady = [(1, a_second); 600];
        assert_eq!(read(&steady, 9_999).await, Ok(600 * (16 << 10)));
        assert_eq!(read(&[(1, a_second / 2); 90], 9_999).await, Err(408), "half of the rate");
        assert_eq!(read(&steady, 300).await, Err(408), "longer than any body may take");
    }
}
