//! What tasks did in this process, for who waits for them; and their order in line.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;
use tidings_actors::{ports::TaskNews, time::Timestamp};
use tokio::sync::Notify;

/// Most things that are remembered for who asks next. More of them are forgotten: who waits also looks from
/// time to time.
const REMEMBERED: usize = 100_000;

/// What tasks did since somebody asked last.
#[derive(Default)]
pub(crate) struct TaskChanges {
    news: Mutex<TaskNews>,
    told: Notify,
    rank: AtomicI64,
}

impl TaskChanges {
    /// A turn is on disk that did this.
    pub(crate) fn tell(&self, of_turn: TaskNews) {
        if of_turn == TaskNews::default() {
            return;
        }
        let mut news = self.news.lock();
        if news.ended.len() > REMEMBERED || news.ready.len() > REMEMBERED {
            *news = TaskNews::default();
        }
        news.ready.extend(of_turn.ready);
        news.ended.extend(of_turn.ended);
        news.room.extend(of_turn.room);
        news.wake_at = news.wake_at.into_iter().chain(of_turn.wake_at).min();
        drop(news);
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
