//! What is asked of a cursor in the in-memory store: resyncs, replays, skips.

use tidings_entity::{
    id::{AppId, CursorId, ObjectId, WatchId},
    kind::CursorState,
};

use super::rows::{CursorRow, State};
use crate::{
    model::round::TreeEnd,
    ports::{Head, StoreError, Streak},
    time::Timestamp,
};

impl State {
    pub(super) fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        self.own_watch(app, id)?;
        let found: Vec<_> = self
            .cursors
            .iter()
            .filter(|(key, row)| row.watch == *id && cursor.is_none_or(|it| it == *key))
            .filter_map(|(key, row)| {
                let mut held = row.held.iter().chain(row.was.iter().rev());
                held.find(|tree| tree.commit == commit).map(|tree| (key.clone(), tree.clone()))
            })
            .collect();
        match found.as_slice() {
            [held] => Ok(held.clone()),
            _ => Err(StoreError::Conflict(format!("{} branches held it", found.len()))),
        }
    }

    pub(super) fn request_replay(&mut self, id: &CursorId, from: &TreeEnd) -> Result<(), StoreError> {
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        if cursor.resync.is_some() {
            cursor.keep_base(from.clone());
            return Ok(());
        }
        if cursor.held.is_none() {
            return Err(StoreError::Conflict("there is nothing to deliver once more".into()));
        }
        cursor.replay = Some(from.clone());
        Ok(())
    }

    pub(super) fn drop_replay(&mut self, id: &CursorId, from: ObjectId) {
        if let Some(cursor) = self.cursors.get_mut(id) {
            cursor.replay.take_if(|replay| replay.commit == from);
        }
    }

    pub(super) fn request_skip(
        &mut self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        self.own_watch(app, id)?;
        let own = |key: &CursorId, row: &CursorRow| row.watch == *id && cursor.is_none_or(|it| it == key);
        if cursor.is_some() && !self.cursors.iter().any(|(key, row)| own(key, row)) {
            return Err(StoreError::NotFound);
        }
        let unsettled = |row: &CursorRow| {
            let open = row.open.as_ref().filter(|round| round.position < round.summary.total());
            open.map(|round| (round.number, round.position))
        };
        let mut heads: Vec<Head> = self
            .cursors
            .iter()
            .filter(|(key, row)| own(key, row))
            .filter_map(|(key, row)| unsettled(row).map(|(round, position)| (key, round, position)))
            .map(|(cursor, round, position)| Head { cursor: cursor.clone(), round, position, task: None })
            .collect();
        let (Some(head), true) = (heads.pop(), heads.is_empty()) else {
            return Err(StoreError::Conflict("not one change is at the head".into()));
        };
        if expected.is_some_and(|expected| expected != (head.round, head.position)) {
            return Err(StoreError::Conflict("the head moved on".into()));
        }
        if let Some(row) = self.cursors.get_mut(&head.cursor) {
            row.skip = Some((head.round, head.position));
        }
        Ok(head)
    }

    pub(super) fn resync_watch(&mut self, id: &WatchId, complete: bool, now: Timestamp) {
        let own = self.cursors.iter().filter(|(_, cursor)| cursor.watch == *id);
        let own: Vec<CursorId> = own.map(|(id, _)| id.clone()).collect();
        for cursor in own {
            self.resync_cursor(&cursor, complete, None, now);
        }
    }

    pub(super) fn resync_cursor(
        &mut self,
        id: &CursorId,
        complete: bool,
        reason: Option<&str>,
        now: Timestamp,
    ) {
        let Some(at_rest) = self.cursors.get(id).map(|cursor| self.at_rest(cursor)) else { return };
        let Some(cursor) = self.cursors.get_mut(id) else { return };
        let mut complete = complete;
        if let Some(round) = cursor.open.take() {
            // What a complete resync was begun for is not done before it ended.
            complete |= round.complete;
            cursor.end(round.clone(), now);
            for tree in round.spec.target.into_iter().chain(round.spec.held).chain(round.spec.bases) {
                cursor.keep_base(tree);
            }
        }
        if let Some(tree) = cursor.replay.take() {
            cursor.keep_base(tree);
        }
        if cursor.state == CursorState::Blocked {
            cursor.state = at_rest;
        }
        cursor.resync = Some(complete || cursor.resync == Some(true));
        cursor.behind_since.get_or_insert(now);
        cursor.reason = reason.map(str::to_owned);
        cursor.streak = Streak::default();
    }
}
