//! Which connections only wait. When there is no room for one more, the one that has waited longest
//! makes room: whoever opens connections and asks nothing keeps nobody out, from however many
//! addresses. A connection waits until its request's headers are there, and again after its answer.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// The place of who does not wait.
const ANSWERED: u64 = u64::MAX;

/// Those that wait, the longest first.
#[derive(Clone, Default)]
pub(super) struct Crowd {
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<BTreeMap<u64, Arc<Notify>>>>,
    /// Told whenever one begins to wait.
    arrived: Arc<Notify>,
}

impl Crowd {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that waits from now on.
    pub(super) fn enter(&self) -> Arc<Member> {
        let member = Member { crowd: self.clone(), leave: Arc::default(), place: AtomicU64::new(0) };
        member.wait();
        Arc::new(member)
    }

    /// Resolves when a connection begins to wait after this was called.
    pub(super) fn next_to_wait(&self) -> impl Future<Output = ()> {
        self.arrived.clone().notified_owned()
    }

    /// Tells the one that has waited longest to end; whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let Some((_, longest)) = self.waiting().pop_first() else { return false };
        longest.notify_one();
        true
    }
}

/// One connection.
pub(super) struct Member {
    crowd: Crowd,
    leave: Arc<Notify>,
    /// Where it stands while it waits; [`ANSWERED`] while it does not.
    place: AtomicU64,
}

impl Member {
    /// Resolves when it has to make room. Where a request came in at the same moment, the next in line
    /// makes room instead: an answer that was begun is given.
    pub(super) async fn told_to_leave(&self) {
        loop {
            self.leave.notified().await;
            if self.place.load(Ordering::Relaxed) != ANSWERED {
                break;
            }
            self.crowd.make_room();
        }
    }

    /// A request of it is being answered until this is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.crowd.waiting().remove(&self.place.swap(ANSWERED, Ordering::Relaxed));
        Busy(self.clone())
    }

    fn wait(&self) {
        let place = self.crowd.next.fetch_add(1, Ordering::Relaxed);
        self.place.store(place, Ordering::Relaxed);
        self.crowd.waiting().insert(place, self.leave.clone());
        self.crowd.arrived.notify_waiters();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.waiting().remove(&self.place.load(Ordering::Relaxed));
    }
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Member>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// The body of an answer: it is being answered until its end.
pub(super) struct Answering<B> {
    body: B,
    _busy: Busy,
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
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
    use futures_util::FutureExt;

    use super::*;

    fn is_told(member: &Member) -> bool {
        member.told_to_leave().now_or_never().is_some()
    }

    #[test]
    fn who_has_waited_longest_makes_room_and_who_is_answered_does_not() {
        let crowd = Crowd::default();
        let members: Vec<_> = (0..3).map(|_| crowd.enter()).collect();
        let answered = members[0].busy();
        assert!(crowd.make_room());
        assert_eq!([0, 1, 2].map(|one| is_told(&members[one])), [false, true, false]);

        drop(answered);
        assert!(crowd.make_room(), "the other one came before its answer ended");
        assert_eq!([0, 1, 2].map(|one| is_told(&members[one])), [false, false, true]);
        assert!(crowd.make_room());
        assert!(is_told(&members[0]));
        assert!(!crowd.make_room(), "nobody waits any more");
    }

    #[test]
    fn who_is_told_while_a_request_comes_in_passes_it_on() {
        let crowd = Crowd::default();
        let [first, second] = [crowd.enter(), crowd.enter()];
        assert!(crowd.make_room());
        let answered = first.busy();
        assert!(!is_told(&first));
        assert!(is_told(&second));
        drop(answered);
    }

    #[test]
    fn who_begins_to_wait_is_told_of() {
        let crowd = Crowd::default();
        let member = crowd.enter();
        let answered = member.busy();
        let mut waits = std::pin::pin!(crowd.next_to_wait());
        assert!(!crowd.make_room() && waits.as_mut().now_or_never().is_none());
        drop(answered);
        assert!(waits.as_mut().now_or_never().is_some());
        assert!(crowd.make_room());
    }

    #[test]
    fn a_connection_that_ended_leaves_nothing_behind() {
        let crowd = Crowd::default();
        let member = crowd.enter();
        drop(member.busy());
        drop(member);
        assert!(!crowd.make_room());
    }
}
