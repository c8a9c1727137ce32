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
    /// What transactions do that are not on disk yet.
    marked: Mutex<TaskNews>,
    told: Notify,
    rank: AtomicI64,
}

impl TaskChanges {
    /// A turn is on disk that did this. Verbs [mark](Self::mark) what they do: a caller may be gone by now.
    pub(crate) fn tell(&self, of_turn: TaskNews) {
        if of_turn == TaskNews::default() {
            return;
        }
        let mut news = self.news.lock();
        if news.ended.len() > REMEMBERED || news.ready.len() > REMEMBERED {
            *news = TaskNews::default();
        }
        add(&mut news, of_turn);
        drop(news);
        self.told.notify_one();
    }

    /// A verb does this in a transaction that is not on disk yet. [`Self::tell_marked`] tells it: who is told
    /// reads at once, perhaps over another connection or at another replica, and must see what changed.
    pub(crate) fn mark(&self, of_verb: TaskNews) {
        add(&mut self.marked.lock(), of_verb);
    }

    /// Tells what was marked, once its transaction is on disk. A verb that failed may be told as well: who is
    /// told looks in vain.
    pub(crate) fn tell_marked(&self) {
        let marked = std::mem::take(&mut *self.marked.lock());
        self.tell(marked);
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
    news.ready.extend(more.ready);
    news.rated.extend(more.rated);
    news.ended.extend(more.ended);
    news.room.extend(more.room);
    news.wake_at = news.wake_at.into_iter().chain(more.wake_at).min();
}
