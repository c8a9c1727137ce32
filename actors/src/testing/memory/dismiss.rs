//! Dismissed letters of the in-memory store.

use std::collections::BTreeSet;

use tidings_entity::{
    id::{AppId, DeadLetterId},
    kind::LetterStatus,
};

use super::{
    letters::names,
    rows::{LetterRow, State},
};
use crate::{
    ports::{Dismissed, LetterFilter, REDRIVE_STEP, StoreError, bound_to_open_round},
    time::Timestamp,
};

impl State {
    pub(super) fn dismiss(
        &mut self,
        app: &AppId,
        ids: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut dismissed = 0;
        for id in ids.iter().collect::<BTreeSet<_>>() {
            let row = self.own_letter(app, id)?;
            match row.shown.status {
                _ if row.is_open() && self.is_bound_now(row) => {
                    return Err(StoreError::Conflict(bound_to_open_round(id)));
                }
                LetterStatus::Dismissed => continue,
                status if !row.is_open() => {
                    return Err(StoreError::Conflict(format!("{id} is {status} already")));
                }
                _ => {}
            }
            self.close_by_hand(id, at);
            dismissed += 1;
        }
        Ok(dismissed)
    }

    pub(super) fn dismiss_some(
        &mut self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError> {
        let matcher = filter.matcher().map_err(|error| StoreError::Conflict(error.to_string()))?;
        let own = |row: &&LetterRow| row.app == *app && before.is_none_or(|before| row.shown.id < *before);
        let step = usize::try_from(REDRIVE_STEP).unwrap_or(usize::MAX);
        let looked: Vec<&LetterRow> = self.letters.values().rev().filter(own).take(step).collect();
        let next = looked.last().filter(|_| looked.len() == step).map(|row| row.shown.id.clone());
        let meant = looked.into_iter().filter(|row| {
            row.is_open() && matcher.admits(&row.shown, names(&self.apps, &self.watches, row).as_ref())
        });
        let (bound, open): (Vec<&LetterRow>, Vec<&LetterRow>) = meant.partition(|row| self.is_bound_now(row));
        let done = Dismissed { dismissed: open.len() as u64, bound: bound.len() as u64, next };
        let ids: Vec<DeadLetterId> = open.into_iter().map(|row| row.shown.id.clone()).collect();
        ids.iter().for_each(|id| self.close_by_hand(id, at));
        Ok(done)
    }

    /// Whether the open round of its cursor sends it.
    fn is_bound_now(&self, row: &LetterRow) -> bool {
        let open = self.cursors.get(&row.shown.cursor).and_then(|cursor| cursor.open.as_ref());
        row.bound.is_some() && row.bound == open.map(|round| round.number)
    }

    fn close_by_hand(&mut self, id: &DeadLetterId, at: Timestamp) {
        let Some(row) = self.letters.get_mut(id) else { return };
        (row.shown.status, row.closed_at) = (LetterStatus::Dismissed, Some(at));
        let redrive = row.shown.redrive.take();
        if let Some(redrive) = redrive.and_then(|redrive| self.redrives.get_mut(&redrive)) {
            redrive.cancelled += 1;
        }
    }
}
