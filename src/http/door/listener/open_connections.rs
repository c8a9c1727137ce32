//! The connections that wait for their clients. When all places are taken, the connection that has waited
//! longest is closed for the next one: clients that connect and send nothing cannot keep others out, even
//! from many addresses. A connection waits until its request has arrived with its body, again once its answer
//! has left this process, and in between from the moment at which its client falls behind with reading the
//! answer.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The number of a connection in the waiting order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ConnectionNumber(u64);

/// The connections that wait for their clients, the longest wait first.
#[derive(Clone, Default)]
pub(super) struct OpenConnections {
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<BTreeMap<ConnectionNumber, Arc<Notify>>>>,
    /// Notified whenever a connection begins to wait.
    arrived: Arc<Notify>,
}

impl OpenConnections {
    /// Adds a connection to the waiting ones.
    fn join(&self, leave: &Arc<Notify>) -> ConnectionNumber {
        let place = ConnectionNumber(self.next.fetch_add(1, Ordering::Relaxed));
        self.waiting.lock().insert(place, leave.clone());
        self.arrived.notify_waiters();
        place
    }

    #[cfg(test)]
    pub(super) fn has_any(&self) -> bool {
        !self.waiting.lock().is_empty()
    }

    /// A connection that waits from now on.
    pub(super) fn enter(&self) -> Arc<Member> {
        let state = Mutex::new(State { stage: Stage::Flushing, behind: None });
        let member = Member { open: self.clone(), leave: Arc::default(), state };
        member.flushed();
        Arc::new(member)
    }

    /// Resolves when a connection begins to wait after this was called.
    pub(super) fn next_to_wait(&self) -> impl Future<Output = ()> {
        self.arrived.clone().notified_owned()
    }

    /// Tells the connection that has waited longest to end. Returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let Some((_, longest)) = self.waiting.lock().pop_first() else { return false };
        longest.notify_one();
        true
    }
}

/// How far a connection is with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request has not arrived completely; with the connection's place in the list.
    Waiting(ConnectionNumber),
    /// The request is being answered.
    Busy,
    /// The answer is complete, but not written yet.
    Flushing,
}

struct State {
    stage: Stage,
    /// The connection's place in the list, if its client is behind with reading.
    behind: Option<ConnectionNumber>,
}

/// One open connection, which leaves the list when it is dropped.
pub(super) struct Member {
    open: OpenConnections,
    leave: Arc<Notify>,
    /// Locked before the list of open connections, where both are.
    state: Mutex<State>,
}

impl Member {
    /// Resolves when the connection must make room. If a request arrives at the same moment, the next
    /// connection makes room instead, so that every begun answer is sent.
    pub(super) async fn told_to_leave(&self) {
        loop {
            self.leave.notified().await;
            {
                let state = self.state.lock();
                if matches!(state.stage, Stage::Waiting(_)) || state.behind.is_some() {
                    break;
                }
            }
            self.open.make_room();
        }
    }

    /// The request has arrived, or is answered earlier: the connection keeps its place.
    pub(super) fn asked(&self) {
        let mut state = self.state.lock();
        if let Stage::Waiting(place) = state.stage {
            self.open.waiting.lock().remove(&place);
        }
        state.stage = Stage::Busy;
    }

    /// The whole answer was produced; the rest is to write it.
    fn answered(&self) {
        self.state.lock().stage = Stage::Flushing;
    }

    /// All pending bytes are written. If they were an answer, the connection waits for its client again.
    pub(super) fn flushed(&self) {
        let mut state = self.state.lock();
        if state.stage == Stage::Flushing {
            state.stage = Stage::Waiting(self.open.join(&self.leave));
        }
    }

    /// Notes that the client is behind with reading the answer.
    pub(super) fn behind(&self) {
        let mut state = self.state.lock();
        if state.behind.is_none() {
            state.behind = Some(self.open.join(&self.leave));
        }
    }

    /// Notes that the client has caught up with reading.
    pub(super) fn keeps_up(&self) {
        if let Some(place) = self.state.lock().behind.take() {
            self.open.waiting.lock().remove(&place);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let state = self.state.lock();
        let mut waiting = self.open.waiting.lock();
        if let Stage::Waiting(place) = state.stage {
            waiting.remove(&place);
        }
        if let Some(place) = state.behind {
            waiting.remove(&place);
        }
    }
}

/// The body of a request: the connection waits until the body ends, or until its reader drops it.
pub(super) struct Arriving<B> {
    body: B,
    member: Arc<Member>,
}

impl<B: Body> Arriving<B> {
    pub(super) fn new(body: B, member: Arc<Member>) -> Self {
        if body.is_end_stream() {
            member.asked();
        }
        Self { body, member }
    }
}

impl<B: Body + Unpin> Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.member.asked();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.member.asked();
    }
}

/// The body of an answer; the connection counts as answering until its end.
pub(super) struct Answering<B> {
    body: B,
    member: Arc<Member>,
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, member: Arc<Member>) -> Self {
        member.asked();
        Self { body, member }
    }
}

impl<B> Drop for Answering<B> {
    fn drop(&mut self) {
        self.member.answered();
    }
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;

    fn is_told(member: &Member) -> bool {
        member.told_to_leave().now_or_never().is_some()
    }

    #[test]
    fn who_has_waited_longest_makes_room_and_who_is_answered_does_not() {
        let open = OpenConnections::default();
        let members: Vec<_> = (0..3).map(|_| open.enter()).collect();
        let answer = Answering::new((), members[0].clone());
        assert!(open.make_room());
        assert_eq!([0, 1, 2].map(|one| is_told(&members[one])), [false, true, false]);

        drop(answer);
        members[0].flushed();
        assert!(open.make_room(), "the other one came before its answer ended");
        assert_eq!([0, 1, 2].map(|one| is_told(&members[one])), [false, false, true]);
        assert!(open.make_room());
        assert!(is_told(&members[0]));
        assert!(!open.make_room(), "nobody waits any more");
    }

    #[test]
    fn who_sends_half_a_body_waits_until_its_end() {
        let open = OpenConnections::default();
        let half = || stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"half")))]);
        let member = open.enter();
        let mut body = Arriving::new(StreamBody::new(half().chain(stream::pending())), member.clone());
        assert!(body.frame().now_or_never().flatten().is_some());
        assert!(body.frame().now_or_never().is_none());
        assert!(open.make_room() && is_told(&member), "half of it is not there");

        let member = open.enter();
        let mut body = Arriving::new(StreamBody::new(half()), member);
        assert!(body.frame().now_or_never().flatten().is_some());
        assert!(body.frame().now_or_never().expect("ready").is_none());
        assert!(!open.make_room(), "it is there");
    }

    #[test]
    fn who_sends_no_body_or_one_that_nobody_reads_does_not_wait() {
        let open = OpenConnections::default();
        let member = open.enter();
        let body = Arriving::new(Empty::<Bytes>::new(), member);
        assert!(!open.make_room());
        drop(body);

        let member = open.enter();
        let body = Arriving::new(Full::new(Bytes::from_static(b"{}")), member);
        assert!(matches!(body.member.state.lock().stage, Stage::Waiting(_)));
        let member = body.member.clone();
        drop(body);
        assert_eq!(member.state.lock().stage, Stage::Busy);
    }

    #[test]
    fn an_answer_that_is_not_written_yet_keeps_its_place() {
        let open = OpenConnections::default();
        let member = open.enter();
        let answer = Answering::new((), member.clone());
        member.flushed();
        assert!(!open.make_room(), "a part of it was written");
        drop(answer);
        assert!(!open.make_room(), "its end was not");
        member.flushed();
        assert!(open.make_room());
    }

    #[test]
    fn who_is_told_while_a_request_comes_in_passes_it_on() {
        let open = OpenConnections::default();
        let [first, second] = [open.enter(), open.enter()];
        assert!(open.make_room());
        first.asked();
        assert!(!is_told(&first));
        assert!(is_told(&second));
    }

    #[test]
    fn who_begins_to_wait_is_told_of() {
        let open = OpenConnections::default();
        let member = open.enter();
        let answer = Answering::new((), member.clone());
        let mut waits = std::pin::pin!(open.next_to_wait());
        assert!(!open.make_room() && waits.as_mut().now_or_never().is_none());
        drop(answer);
        member.flushed();
        assert!(waits.as_mut().now_or_never().is_some());
        assert!(open.make_room());
    }

    #[test]
    fn who_is_behind_makes_room_before_those_that_came_later() {
        let open = OpenConnections::default();
        let [slow, caught_up, idle] = [open.enter(), open.enter(), open.enter()];
        let _answers = [&slow, &caught_up].map(|member| Answering::new((), member.clone()));
        slow.behind();
        caught_up.behind();
        caught_up.keeps_up();
        let fresh = open.enter();
        let who_leaves = || {
            assert!(open.make_room());
            [&slow, &caught_up, &idle, &fresh].map(|member| is_told(member))
        };
        assert_eq!(who_leaves(), [false, false, true, false], "it waited before the slow one was behind");
        assert_eq!(who_leaves(), [true, false, false, false]);
        assert_eq!(who_leaves(), [false, false, false, true]);
        assert!(!open.make_room(), "nobody waits any more");
    }

    #[test]
    fn a_connection_that_ended_leaves_nothing_behind() {
        let open = OpenConnections::default();
        let member = open.enter();
        drop(Answering::new((), member.clone()));
        member.flushed();
        drop(member);
        assert!(!open.make_room());
    }
}
