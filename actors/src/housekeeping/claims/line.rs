//! Who waits for tasks, in the order in which they came, and for whom of them there may be work. Pure.
//!
//! A queue is *hot* while there may be work in it: somebody joined the line for it, or something happened in
//! it. When a worker finds nothing in a hot queue it is dry, unless something happened in it meanwhile. So a
//! single task wakes the first worker in line, and one more to see that the queue is dry, however long the
//! line is.

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::id::QueueId;

use crate::ports::{CLAIM_QUEUE_MAX, ClaimRequest};

/// A worker in line.
struct Waiter<R> {
    request: ClaimRequest,
    queues: Vec<QueueId>,
    reply: R,
    /// Whether it stays in line where there is nothing.
    is_patient: bool,
}

/// The line, with a way to answer each worker.
pub struct Line<R> {
    waiters: BTreeMap<u64, Waiter<R>>,
    next: u64,
    hot: BTreeSet<QueueId>,
    /// Queues that the claim under way asks for, and in which nobody found nothing yet.
    tried: BTreeSet<QueueId>,
}

impl<R> Default for Line<R> {
    fn default() -> Self {
        Self { waiters: BTreeMap::new(), next: 0, hot: BTreeSet::new(), tried: BTreeSet::new() }
    }
}

impl<R> Line<R> {
    /// How many workers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether no worker waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Puts a worker at the end of the line. One that is not patient leaves it as soon as its queues are dry.
    pub fn join(&mut self, request: ClaimRequest, reply: R, is_patient: bool) {
        let queues: Vec<QueueId> =
            request.commands.iter().map(|command| QueueId::of(&request.app, command)).collect();
        self.hot.extend(queues.iter().cloned());
        self.waiters.insert(self.next, Waiter { request, queues, reply, is_patient });
        self.next += 1;
    }

    /// Something happened in a queue.
    pub fn ready(&mut self, queue: &QueueId) {
        self.hot.insert(queue.clone());
    }

    /// Something may have happened in any queue.
    pub fn ready_all(&mut self) {
        let queues = self.waiters.values().flat_map(|waiter| waiter.queues.iter().cloned());
        self.hot.extend(queues);
    }

    /// The first workers for whom there may be work, with their places. Those who are gone leave the line.
    ///
    /// Together they ask for no more tasks of a queue than one turn takes from a queue ([`CLAIM_QUEUE_MAX`]):
    /// a worker that finds nothing proves that its queues are dry only if the turn looked at all tasks that
    /// it could have had.
    pub fn next(&mut self, most: usize, is_gone: impl Fn(&R) -> bool) -> Vec<(u64, ClaimRequest)> {
        if self.hot.is_empty() {
            return Vec::new();
        }
        self.waiters.retain(|_, waiter| !is_gone(&waiter.reply));
        self.tried = std::mem::take(&mut self.hot);
        let hopes = |waiter: &Waiter<R>| waiter.queues.iter().any(|queue| self.tried.contains(queue));
        let (mut asked, mut of_queues) = (Vec::new(), BTreeMap::new());
        for (place, waiter) in self.waiters.iter().filter(|(_, waiter)| hopes(waiter)).take(most) {
            let count = i64::try_from(waiter.request.count).unwrap_or(CLAIM_QUEUE_MAX);
            let mut largest = 0;
            for queue in &waiter.queues {
                let of_queue = of_queues.entry(queue).or_insert(0_i64);
                *of_queue += count;
                largest = largest.max(*of_queue);
            }
            if largest > CLAIM_QUEUE_MAX && !asked.is_empty() {
                break;
            }
            asked.push((*place, waiter.request.clone()));
        }
        if asked.is_empty() {
            // Nobody waits for these: who joins makes them hot again.
            self.tried.clear();
        }
        asked
    }

    /// A worker was given nothing: its queues are dry. Which these are.
    pub fn found_nothing(&mut self, place: u64) -> Vec<QueueId> {
        let queues = self.waiters.get(&place).map(|waiter| waiter.queues.clone()).unwrap_or_default();
        for queue in &queues {
            self.tried.remove(queue);
        }
        queues
    }

    /// Takes a worker out of the line that is answered.
    pub fn leave(&mut self, place: u64) -> Option<R> {
        self.waiters.remove(&place).map(|waiter| waiter.reply)
    }

    /// The claim under way has ended: queues in which nobody found nothing stay hot. Returns the workers that
    /// do not wait for more, and for whom there is nothing.
    pub fn ended(&mut self) -> Vec<R> {
        self.hot.append(&mut self.tried);
        let hot = &self.hot;
        let is_over = |_: &u64, waiter: &mut Waiter<R>| {
            !waiter.is_patient && !waiter.queues.iter().any(|queue| hot.contains(queue))
        };
        self.waiters.extract_if(.., is_over).map(|(_, waiter)| waiter.reply).collect()
    }

    /// The claim under way failed: nothing is known. Returns the queues that it asked for. Who does not wait
    /// leaves the line without an answer.
    pub fn failed(&mut self) -> Vec<QueueId> {
        self.waiters.retain(|_, waiter| waiter.is_patient);
        std::mem::take(&mut self.tried).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_entity::id::AppId;
    use ulid::Ulid;

    use super::*;

    fn app(number: u128) -> AppId {
        AppId::new(Ulid::from_parts(1, number))
    }

    fn asks(commands: &[&str]) -> ClaimRequest {
        ClaimRequest {
            app: app(1),
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
            count: 1,
            claim: Duration::from_secs(1),
            worker: "tok_w".into(),
        }
    }

    fn places(line: &mut Line<&'static str>) -> Vec<u64> {
        line.next(100, |reply| *reply == "gone").into_iter().map(|(place, _)| place).collect()
    }

    /// A line of this number of workers that found nothing.
    fn dry(workers: u64) -> Line<&'static str> {
        let mut line = Line::default();
        for _ in 0..workers {
            line.join(asks(&["a"]), "here", true);
        }
        for place in places(&mut line) {
            line.found_nothing(place);
        }
        drop(line.ended());
        assert!(places(&mut line).is_empty());
        line
    }

    #[test]
    fn one_task_goes_to_the_first_and_the_others_stay() {
        let mut line = dry(50);
        line.ready(&QueueId::of(&app(1), "a"));
        let asked = places(&mut line);
        assert_eq!(asked[..3], [0, 1, 2]);
        assert_eq!(line.leave(0), Some("here"));
        asked[1..].iter().for_each(|place| drop(line.found_nothing(*place)));
        drop(line.ended());
        assert!(places(&mut line).is_empty(), "the queue is dry");
        assert_eq!(line.len(), 49);
        line.ready(&QueueId::of(&app(1), "a"));
        assert_eq!(places(&mut line)[0], 1);
    }

    #[test]
    fn what_happens_during_a_claim_is_looked_at_after_it() {
        let mut line = dry(2);
        let queue = QueueId::of(&app(1), "a");
        line.ready(&queue);
        let asked = places(&mut line);
        line.ready(&queue);
        asked.iter().for_each(|place| drop(line.found_nothing(*place)));
        drop(line.ended());
        assert_eq!(places(&mut line), [0, 1]);
    }

    #[test]
    fn a_queue_with_more_work_than_was_asked_for_stays_hot() {
        let mut line: Line<&str> = Line::default();
        for _ in 0..3 {
            line.join(asks(&["a"]), "here", true);
        }
        let asked = line.next(2, |_| false);
        assert_eq!(asked.len(), 2);
        for (place, _) in &asked {
            assert_eq!(line.leave(*place), Some("here"));
        }
        drop(line.ended());
        assert_eq!(places(&mut line), [2]);
    }

    #[test]
    fn workers_do_not_ask_for_more_of_a_queue_than_a_turn_takes_from_it() {
        let hungry = |command: &str| ClaimRequest { count: 100, ..asks(&[command]) };
        let mut line: Line<&str> = Line::default();
        for _ in 0..25 {
            line.join(hungry("a"), "here", true);
        }
        line.join(hungry("b"), "here", false);
        for first in [0, 10] {
            let asked = places(&mut line);
            assert_eq!(asked, (first..first + 10).collect::<Vec<u64>>(), "a turn has tasks for ten of them");
            for place in asked {
                assert_eq!(line.leave(place), Some("here"));
            }
            assert!(line.ended().is_empty(), "nobody looked for those behind yet");
        }
        assert_eq!(places(&mut line), (20..26).collect::<Vec<u64>>(), "another queue counts by itself");
    }

    #[test]
    fn who_is_gone_passes_the_place_on() {
        let mut line: Line<&str> = Line::default();
        line.join(asks(&["a"]), "gone", true);
        line.join(asks(&["a"]), "here", true);
        assert_eq!(places(&mut line), [1]);
        assert_eq!(line.len(), 1);
    }

    #[test]
    fn who_does_not_wait_is_answered_as_soon_as_its_queues_are_dry() {
        let mut line = dry(50);
        line.join(asks(&["a"]), "hurried", false);
        let asked = line.next(2, |_| false);
        asked.iter().for_each(|(place, _)| drop(line.found_nothing(*place)));
        assert_eq!(line.ended(), ["hurried"], "others before it found nothing");
        assert_eq!(line.len(), 50);
        line.join(asks(&["b"]), "hurried", false);
        line.join(asks(&["a"]), "hurried", false);
        assert_eq!(line.next(100, |_| false).len(), 52);
        let asked = line.failed();
        assert_eq!(line.len(), 50);
        assert!(places(&mut line).is_empty(), "nothing is known");
        asked.iter().for_each(|queue| line.ready(queue));
        assert_eq!(places(&mut line).len(), 50, "those who wait are asked for again");
    }

    #[test]
    fn only_who_waits_for_a_queue_is_woken_by_it() {
        let mut line: Line<&str> = Line::default();
        for commands in [&["a"][..], &["b"], &["a", "b"]] {
            line.join(asks(commands), "here", true);
        }
        places(&mut line).into_iter().for_each(|place| drop(line.found_nothing(place)));
        drop(line.ended());
        line.ready(&QueueId::of(&app(1), "b"));
        assert_eq!(places(&mut line), [1, 2]);
        drop(line.failed());
        line.ready(&QueueId::of(&app(2), "b"));
        assert!(places(&mut line).is_empty());
        line.ready_all();
        assert_eq!(places(&mut line), [0, 1, 2]);
    }
}
