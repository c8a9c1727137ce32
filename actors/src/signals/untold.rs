//! Signals that other replicas could not be told yet; they are kept until they are told. A signal is a hint
//! that rows changed, so a late or repeated signal does no harm. Beyond `MOST` different signals, a single
//! [`Signal::Missed`] stands for all.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::ports::Signal;

/// Most signals that are kept.
const MOST: usize = 1_000;

/// Notifications to other replicas that failed and are sent again. Cheap to clone.
#[derive(Clone, Default)]
pub struct Untold(Arc<Mutex<Vec<Signal>>>);

impl Untold {
    /// Keeps a notification that could not be sent.
    pub(crate) fn keep(&self, signal: Signal) {
        let mut kept = self.kept();
        if kept.contains(&signal) || kept.contains(&Signal::Missed) {
            return;
        }
        if kept.len() >= MOST {
            kept.clear();
            kept.push(Signal::Missed);
        } else {
            kept.push(signal);
        }
    }

    /// Whether no signal is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    /// Takes all kept notifications, in their order.
    pub(crate) fn take(&self) -> Vec<Signal> {
        std::mem::take(&mut *self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Signal>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use tidings_entity::id::AppId;
    use ulid::Ulid;

    use super::*;

    #[test]
    fn what_could_not_be_told_is_kept_once_and_in_its_order() {
        let (untold, app) =
            (Untold::default(), |number| Signal::App(AppId::new(Ulid::from_parts(1, number))));
        for number in [2, 1, 2] {
            untold.keep(app(number));
        }
        assert_eq!(untold.take(), [app(2), app(1)]);
        assert!(untold.take().is_empty());
    }

    #[test]
    fn more_than_can_be_kept_becomes_a_word_to_look_at_everything() {
        let untold = Untold::default();
        for number in 0..=MOST as u128 {
            untold.keep(Signal::App(AppId::new(Ulid::from_parts(1, number))));
        }
        untold.keep(Signal::Redrive);
        assert_eq!(untold.take(), [Signal::Missed]);
    }
}
