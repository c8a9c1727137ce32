//! What tasks did in this process, for who waits for them; and their order in line.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;
use tidings_actors::{ports::TaskNews, time::Timestamp};
use tokio::sync::Notify;

/// Most things that are remembered for who asks next, or until a turn is on disk. More of them are forgotten:
/// who waits also looks from time to time.
const REMEMBERED: usize = 100_000;

/// What tasks did since somebody asked last.
#[derive(Default)]
pub(crate) struct TaskChanges {
    news: Mutex<TaskNews>,
    /// What transactions do that are not on disk yet.
    marked: Mutex<TaskNews>,
    told: Notify,
    rank: AtomicI64,
}

impl TaskChanges {
    /// A transaction does this that is not on disk yet, and whose callers may be gone by then.
    /// [`Self::tell_marked`] tells it: who is told reads at once, perhaps over another connection or at
    /// another replica, and must see what changed.
    pub(crate) fn mark(&self, news: TaskNews) {
        add(&mut self.marked.lock(), news);
    }

    /// Tells what was marked, once its transaction is on disk, or has failed for good: then who is told looks
    /// in vain.
    pub(crate) fn tell_marked(&self) {
        let marked = std::mem::take(&mut *self.marked.lock());
        if marked == TaskNews::default() {
            return;
        }
        add(&mut self.news.lock(), marked);
        self.told.notify_one();
    }

    /// Waits until there is something, and takes it.
    pub(crate) async fn next(&self) -> TaskNews {
        loop {
            let news = std::mem::take(&mut *self.news.lock());
            if news != TaskNews::default() {
                return news;
            }
            self.told.notified().await;
        }
    }

    /// The moment, in microseconds, by which a new task stands in line: no two of this process are equal, and
    /// none is before an earlier one.
    pub(crate) fn next_rank(&self, at: Timestamp) -> i64 {
        let now = at.0.saturating_mul(1_000);
        let next = |last: i64| Some(now.max(last + 1));
        let last = self.rank.fetch_update(Relaxed, Relaxed, next).unwrap_or(now);
        now.max(last + 1)
    }
}

/// Adds what tasks did to what they did before. The numbers for the meter go another way.
fn add(news: &mut TaskNews, more: TaskNews) {
    if news.ended.len() > REMEMBERED || news.ready.len() > REMEMBERED {
        *news = TaskNews::default();
    }
    news.ready.extend(more.ready);
    news.rated.extend(more.rated);
    news.ended.extend(more.ended);
    news.room.extend(more.room);
    news.wake_at = news.wake_at.into_iter().chain(more.wake_at).min();
}
