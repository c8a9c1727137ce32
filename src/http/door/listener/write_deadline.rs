//! A stream that fails if its peer does not read, or reads too slowly: hyper has no deadline for writing. It
//! also reports when all bytes are written, which hyper does not.
//!
//! A connection has a budget of waiting time. A waiting write uses the budget up; written bytes give some
//! back, at the least accepted rate, and so does time without anything to write, as between the events of a
//! tail. The budget never exceeds its initial size: a peer that reads a little now and then keeps its place
//! only for as long as its answer takes at that rate. A peer that is some seconds behind that rate makes room
//! for others when all places are taken.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::open_connections::Member;

/// A peer that is this far behind the least rate makes room for others.
const BEHIND: Duration = Duration::from_secs(2);

/// How long writes may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The longest wait of one write, and of all writes together if no byte is read.
    pub(super) limit: Duration,
    /// Bytes a second that a peer takes at least.
    pub(super) rate: u64,
}

impl Bounds {
    /// The rest of the budget at which a peer counts as behind.
    fn little(self) -> Duration {
        self.limit.saturating_sub(BEHIND)
    }
}

/// A stream whose writes may wait only for a limited time.
pub(super) struct WriteDeadline<S> {
    stream: S,
    bounds: Bounds,
    /// The remaining budget as of `since`.
    left: Duration,
    /// When `left` was counted last: a write began to wait or ended.
    since: Instant,
    /// Runs while a write waits: until the peer is behind, and then until no budget is left.
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
    is_behind: bool,
    /// Notified when all bytes are written.
    member: Arc<Member>,
}

impl<S> WriteDeadline<S> {
    pub(super) fn new(stream: S, bounds: Bounds, member: Arc<Member>) -> Self {
        let (left, since) = (bounds.limit, Instant::now());
        Self {
            stream,
            bounds,
            left,
            since,
            deadline: Box::pin(sleep(left)),
            waiting: false,
            is_behind: false,
            member,
        }
    }

    /// Returns a finished write of this many bytes; a write that waits begins or continues its wait.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = written {
            self.count(written.as_ref().map_or(0, bytes));
            self.waiting = false;
            if self.left > self.bounds.little() {
                self.keeps_up();
            }
            return Poll::Ready(written);
        }
        if !self.waiting {
            self.count(0);
            self.waiting = true;
            let behind = self.since + self.left.saturating_sub(self.bounds.little());
            self.deadline.as_mut().reset(behind);
        }
        ready!(self.deadline.as_mut().poll(context));
        let end = self.since + self.left;
        if self.deadline.deadline() < end {
            self.is_behind = true;
            self.member.behind();
            self.deadline.as_mut().reset(end);
            ready!(self.deadline.as_mut().poll(context));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read, or too slowly")))
    }

    fn keeps_up(&mut self) {
        if std::mem::take(&mut self.is_behind) {
            self.member.keeps_up();
        }
    }

    /// Updates the budget for the time and bytes since the last call.
    fn count(&mut self, bytes: usize) {
        let now = Instant::now();
        let passed = now - self.since;
        let left = if self.waiting { self.left.saturating_sub(passed) } else { self.left + passed };
        let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / self.bounds.rate.max(1);
        self.left = left.saturating_add(Duration::from_nanos(nanoseconds)).min(self.bounds.limit);
        self.since = now;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes once its own buffer and that of TLS are empty.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.keeps_up();
            self.member.flushed();
        }
        self.judge(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, ended, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{super::open_connections::OpenConnections, *};

    const BOUNDS: Bounds = Bounds { limit: Duration::from_secs(30), rate: 100 };

    /// A stream of so little room, and its other end.
    fn stream() -> (WriteDeadline<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(10);
        (WriteDeadline::new(near, BOUNDS, OpenConnections::default().enter()), far)
    }

    /// Reads to the end, `part` bytes at a time, with a pause before each read.
    async fn read(far: &mut DuplexStream, part: usize, pause: Duration) -> usize {
        let (mut bytes, mut all) = (vec![0; part], 0);
        loop {
            sleep(pause).await;
            match far.read(&mut bytes).await.expect("read") {
                0 => return all,
                count => all += count,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_given_up_in_time() {
        let (mut stream, mut far) = stream();
        let began = Instant::now();
        let writing = async move {
            let failed = stream.write_all(&[b'a'; 100_000]).await.expect_err("given up");
            assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
            began.elapsed()
        };
        let (took, all) = tokio::join!(writing, read(&mut far, 1, Duration::from_secs(1)));
        assert!(took < Duration::from_secs(32), "{took:?} for {all} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_at_the_least_rate_gets_everything_however_long_it_takes() {
        let (mut stream, mut far) = stream();
        let writing = async move {
            stream.write_all(&[b'a'; 100_000]).await.expect("written");
        };
        let began = Instant::now();
        let ((), all) = tokio::join!(writing, read(&mut far, 10, Duration::from_millis(100)));
        assert_eq!(all, 100_000);
        assert!(began.elapsed() > BOUNDS.limit * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_makes_room_until_it_has_caught_up() {
        let open = OpenConnections::default();
        let member = open.enter();
        // It is being answered: nobody else makes it leave its place.
        let _answer = super::super::open_connections::Answering::new((), member.clone());
        let (near, mut far) = duplex(10);
        let mut stream = WriteDeadline::new(near, BOUNDS, member);
        let writing = async {
            stream.write_all(&[b'a'; 1_000]).await.expect("written");
            stream.flush().await.expect("flushed");
        };
        let reading = async {
            sleep(Duration::from_secs(1)).await;
            assert!(!open.has_any(), "a second is nothing");
            sleep(Duration::from_secs(2)).await;
            assert!(open.has_any(), "it has read nothing for three seconds");
            let mut bytes = [0; 1_000];
            far.read_exact(&mut bytes).await.expect("read");
        };
        tokio::join!(writing, reading);
        assert!(!open.has_any(), "it has read everything");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tail_with_long_pauses_may_be_read_with_short_ones_for_ever() {
        let (mut stream, mut far) = stream();
        let writing = async move {
            for _event in 0..1_000 {
                sleep(Duration::from_secs(60)).await;
                // More than there is room for: it waits for its reader.
                stream.write_all(&[b'e'; 15]).await.expect("written");
            }
        };
        let ((), all) = tokio::join!(writing, read(&mut far, 10, Duration::from_secs(20)));
        assert_eq!(all, 15_000);
    }
}
