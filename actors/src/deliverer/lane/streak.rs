//! What the outcomes of changes say about the receiver, in the order of the list: too many parked changes in
//! a row block the cursor. Then only the head is sent, as a probe, until the receiver is known to work. After
//! that the changes parked in that row are sent again, each dead letter by itself once only.
//!
//! A refusal is an answer about one change: it does not count, and it ends a row, because only a working
//! receiver gives it. A receiver that refuses everything is misconfigured, and blocks its cursor after
//! [`REFUSALS_MAX`].

use tidings_entity::kind::ParkReason;

use super::{
    Lane,
    slot::{Slot, SlotState},
};
use crate::{
    deliverer::retry::Block,
    ports::{Park, REFUSALS_MAX, STREAK_MAX, SelfRedrive, Standing, Streak},
};

/// The reason that blocks a cursor, by its row.
pub(super) fn block_of(streak: Streak, acknowledged: bool, blocked: bool) -> Option<Block> {
    if streak.count >= STREAK_MAX {
        Some(Block::Streak)
    } else if streak.refuses_everything(acknowledged) {
        Some(Block::Refusals)
    } else {
        blocked.then_some(Block::Endpoint)
    }
}

/// Why a cursor is blocked, for people.
pub(super) fn reason(block: Block, answer: Option<u16>) -> String {
    match block {
        Block::Endpoint => "the endpoint has failed for the whole retry window".to_owned(),
        Block::Streak => {
            let said = match answer {
                Some(status) => format!(", the last one with {status}"),
                None => String::new(),
            };
            format!(
                "{STREAK_MAX} changes in a row were given up{said}; the next one is tried every few minutes \
                 until the receiver takes or refuses it (resume the watch to try at once)"
            )
        }
        Block::Refusals => format!(
            "refuses_everything: the receiver refused {REFUSALS_MAX} changes and never took one; the next \
             one is tried every few minutes until the receiver takes it or a test delivery, or the watch is \
             resumed"
        ),
    }
}

impl Lane {
    /// Moves the done prefix over finished slots, in order, and applies the consequences of each.
    pub(super) fn advance_prefix(&mut self) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.is_done()) {
            let Slot { state, answer, .. } = slot;
            match state {
                SlotState::Parked(park) => self.on_given_up(*park, answer),
                SlotState::Settled => self.absorbs = true,
                _ => self.on_taken(),
            }
            self.prefix += 1;
        }
    }

    /// The receiver took the change at the prefix.
    fn on_taken(&mut self) {
        self.end_block();
        self.acknowledged = true;
        (self.streak, self.counted) = (Streak::default(), None);
    }

    /// The change at the prefix was parked; `answer` is the number of the batch answer that parked the
    /// change.
    fn on_given_up(&mut self, park: Park, answer: Option<u64>) {
        match park.reason {
            ParkReason::Rejected | ParkReason::Failing if park.counted => {
                // Several changes refused in one answer count once.
                let repeated = answer.is_some() && answer == self.counted;
                self.streak.count += u32::from(!repeated);
                self.counted = answer;
                self.streak.from.get_or_insert((self.round.number, self.prefix));
            }
            ParkReason::Rejected | ParkReason::Failing => {
                if self.block == Some(Block::Streak) {
                    self.end_block();
                }
                let refused = self.streak.refused + u32::from(!self.acknowledged && park.status.is_some());
                (self.streak, self.counted) = (Streak { refused, ..Streak::default() }, None);
            }
            ParkReason::Skipped if self.block.is_some() => {
                self.end_block();
                (self.streak, self.counted) = (Streak::default(), None);
            }
            ParkReason::Skipped | ParkReason::ContentUnavailable => {}
        }
        let answer = park.status;
        self.parks.push(park);
        let block = block_of(self.streak, self.acknowledged, self.is_blocked());
        if let Some(block) = block.filter(|_| self.block.is_none()) {
            self.block = Some(block);
            self.standing = Standing::Blocked(reason(block, answer));
            self.release();
        }
    }

    /// The receiver works again, or a person looked: the changes that were parked in the row that blocked the
    /// cursor are sent again.
    fn end_block(&mut self) {
        let Some(block) = self.block.take() else { return };
        self.standing = Standing::Unblocked;
        let before = (self.round.number, self.prefix);
        match block {
            Block::Endpoint => {}
            Block::Streak => {
                let from = self.streak.from.unwrap_or(before);
                self.redrive.push(SelfRedrive { from, before, counted: true });
            }
            Block::Refusals => self.redrive.push(SelfRedrive { from: (0, 0), before, counted: false }),
        }
    }
}
