//! Dead letters and redrives of the in-memory store.

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::{LetterStatus, RoundKind},
};

use super::rows::{AppRow, LetterRow, RedriveRow, State, WatchRow};
use crate::{
    model::round::Letter,
    ports::{
        Cancelled, DeadLetter, LANE_LETTERS, LetterFilter, LetterNames, LetterPage, LetterPick, REDRIVE_STEP,
        Random, Redrive, RedriveStep, SEARCH_STEP, StoreError,
    },
    testing::SeededRandom,
    time::Timestamp,
};

fn letter(row: &LetterRow) -> (Letter, LetterStatus) {
    let shown = &row.shown;
    let letter = Letter {
        id: shown.id.clone(),
        path: shown.path.clone(),
        before: row.before,
        delivery: shown.delivery.clone(),
    };
    (letter, shown.status)
}

/// What people call the app and the repository of a letter.
pub(super) fn names(
    apps: &BTreeMap<AppId, AppRow>,
    watches: &BTreeMap<WatchId, WatchRow>,
    row: &LetterRow,
) -> Option<LetterNames> {
    let watch = watches.get(&row.shown.watch)?;
    let app_name = apps.get(&row.app)?.new.name.clone();
    let (owner, name) = (watch.new.facts.owner.clone(), watch.new.facts.name.clone());
    Some(LetterNames { app: row.app.clone(), app_name, owner, name })
}

impl State {
    /// The letters of a lane, and whether there are more.
    pub(super) fn lane_letters(&self, cursor: &CursorId) -> (Vec<(Letter, LetterStatus)>, bool) {
        let mut letters: Vec<_> = self.open_letters(cursor).map(letter).collect();
        letters.sort_by(|(one, status), (other, than)| {
            let waits = |status: LetterStatus| status != LetterStatus::RedriveRequested;
            waits(*status).cmp(&waits(*than)).then(one.path.cmp(&other.path))
        });
        let more = letters.len() > LANE_LETTERS;
        letters.truncate(LANE_LETTERS);
        letters.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        (letters, more)
    }

    pub(super) fn picked_letters(&self, cursor: &CursorId, pick: &LetterPick) -> Vec<(Letter, LetterStatus)> {
        let is_picked = |row: &&LetterRow| match pick {
            LetterPick::Ids(ids) => ids.contains(&row.shown.id),
            LetterPick::Paths(paths) => paths.contains(&row.shown.path),
            LetterPick::After(after) => after.as_ref().is_none_or(|after| row.shown.path > *after),
        };
        let mut letters: Vec<_> = self.open_letters(cursor).filter(is_picked).map(letter).collect();
        letters.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        letters.truncate(LANE_LETTERS);
        letters
    }

    /// The letters bound to a round, sorted by path.
    pub(super) fn bound_letters(&self, cursor: &CursorId, round: i64) -> Vec<Letter> {
        let bound = |row: &&LetterRow| row.shown.cursor == *cursor && row.bound == Some(round);
        let mut letters: Vec<Letter> = self.letters.values().filter(bound).map(|row| letter(row).0).collect();
        letters.sort_by(|one, other| one.path.cmp(&other.path));
        letters
    }

    pub(super) fn own_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<&LetterRow, StoreError> {
        self.letters.get(id).filter(|row| row.app == *app).ok_or(StoreError::NotFound)
    }

    pub(super) fn shown_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError> {
        let matcher = filter.matcher().map_err(|error| StoreError::Conflict(error.to_string()))?;
        let mut page = LetterPage::default();
        let own = |row: &&LetterRow| row.app == *app && before.is_none_or(|before| row.shown.id < *before);
        for (looked, row) in (0..).zip(self.letters.values().rev().filter(own)) {
            if looked == SEARCH_STEP || page.letters.len() as u64 == limit {
                return Ok(page);
            }
            page.next = Some(row.shown.id.clone());
            let names = names(&self.apps, &self.watches, row);
            let meant = Some(&row.shown).filter(|shown| matcher.admits(shown, names.as_ref()));
            page.letters.extend(meant.cloned());
        }
        page.next = None;
        Ok(page)
    }

    pub(super) fn request_redrive(
        &mut self,
        random: &SeededRandom,
        app: &AppId,
        ids: &[DeadLetterId],
        now: Timestamp,
    ) -> Result<(u64, Vec<CursorId>), StoreError> {
        let ids: BTreeSet<&DeadLetterId> = ids.iter().collect();
        let redrive = RedriveId::new(random.ulid(now));
        let (mut cursors, mut asked) = (BTreeSet::new(), 0);
        let (sending, ending) = (self.sending(false), self.sending(true));
        for id in &ids {
            let row = self.letters.get_mut(*id).filter(|row| row.app == *app).ok_or(StoreError::NotFound)?;
            if !row.is_open() {
                return Err(StoreError::Conflict(format!("{id} is {}", row.shown.status)));
            }
            if row.shown.status == LetterStatus::Open && !sending.contains(*id) {
                row.shown.status = LetterStatus::RedriveRequested;
                let former = row.shown.redrive.replace(redrive.clone()).filter(|_| ending.contains(*id));
                if let Some(former) = former.and_then(|former| self.redrives.get_mut(&former)) {
                    former.cancelled += 1;
                }
                asked += 1;
            }
            cursors.insert(row.shown.cursor.clone());
        }
        if asked > 0 {
            let row = self.new_redrive(app, None, now);
            self.redrives.insert(redrive, RedriveRow { asked, is_marking: false, ..row });
        }
        Ok((ids.len() as u64, cursors.into_iter().collect()))
    }

    /// The letters that open redrives are sending: those that were cancelled, or the others.
    fn sending(&self, cancelled: bool) -> BTreeSet<DeadLetterId> {
        let is_sent = |row: &&LetterRow| {
            let Some(cursor) = self.cursors.get(&row.shown.cursor) else { return false };
            cursor.open.as_ref().is_some_and(|round| {
                let is_bound = round.spec.kind == RoundKind::Redrive && row.bound == Some(round.number);
                is_bound && (cursor.cancel == Some(round.number)) == cancelled
            })
        };
        self.letters.values().filter(is_sent).map(|row| row.shown.id.clone()).collect()
    }

    fn new_redrive(&self, app: &AppId, filter: Option<LetterFilter>, now: Timestamp) -> RedriveRow {
        let through = self.letters.values().rev().find(|row| row.app == *app);
        RedriveRow {
            app: app.clone(),
            filter,
            marked_to: None,
            through: through.map(|row| row.shown.id.clone()),
            is_marking: through.is_some(),
            asked: 0,
            cancelled: 0,
            created_at: now,
        }
    }

    pub(super) fn begin_redrive(
        &mut self,
        random: &SeededRandom,
        app: &AppId,
        filter: &LetterFilter,
        now: Timestamp,
    ) -> RedriveId {
        let id = RedriveId::new(random.ulid(now));
        let row = self.new_redrive(app, Some(filter.clone()), now);
        self.redrives.insert(id.clone(), row);
        id
    }

    pub(super) fn mark_redrive(&mut self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError> {
        let (sending, ending) = (self.sending(false), self.sending(true));
        let mut former = Vec::new();
        let wanted =
            |(key, row): &(&RedriveId, &mut RedriveRow)| row.is_marking && id.is_none_or(|id| id == *key);
        let Some((redrive, row)) = self.redrives.iter_mut().find(wanted) else { return Ok(None) };
        let filter = row.filter.clone().unwrap_or_default();
        let filter = LetterFilter { status: Some(LetterStatus::Open), ..filter };
        let matcher = filter.matcher().map_err(|error| StoreError::Conflict(error.to_string()))?;
        let (mut looked, mut marked, mut cursors) = (0, 0, BTreeSet::new());
        for letter in self.letters.values_mut().filter(|letter| letter.app == row.app) {
            let id = &letter.shown.id;
            if row.marked_to.as_ref().is_some_and(|to| id <= to) || Some(id) > row.through.as_ref() {
                continue;
            }
            if looked == REDRIVE_STEP {
                break;
            }
            looked += 1;
            row.marked_to = Some(id.clone());
            let names = names(&self.apps, &self.watches, letter);
            if matcher.admits(&letter.shown, names.as_ref()) && !sending.contains(&letter.shown.id) {
                letter.shown.status = LetterStatus::RedriveRequested;
                let before = letter.shown.redrive.replace(redrive.clone());
                former.extend(before.filter(|_| ending.contains(&letter.shown.id)));
                cursors.insert(letter.shown.cursor.clone());
                marked += 1;
            }
        }
        row.asked += marked;
        row.is_marking = looked == REDRIVE_STEP;
        let step = RedriveStep {
            redrive: redrive.clone(),
            app: row.app.clone(),
            marked,
            cursors: cursors.into_iter().collect(),
            more: row.is_marking,
        };
        for former in former {
            if let Some(row) = self.redrives.get_mut(&former) {
                row.cancelled += 1;
            }
        }
        Ok(Some(step))
    }

    pub(super) fn shown_redrives(&self, app: &AppId, before: Option<&RedriveId>, limit: u64) -> Vec<Redrive> {
        let own = self
            .redrives
            .iter()
            .rev()
            .filter(|(id, row)| row.app == *app && before.is_none_or(|before| *id < before));
        own.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|(id, row)| self.shown(id, row)).collect()
    }

    fn shown(&self, id: &RedriveId, row: &RedriveRow) -> Redrive {
        let (mut sent, mut refused, mut left) = (0, 0, 0);
        for letter in self.letters.values().filter(|letter| letter.shown.redrive.as_ref() == Some(id)) {
            match letter.shown.status {
                LetterStatus::Redriven => sent += 1,
                LetterStatus::Superseded if letter.in_redrive => refused += 1,
                LetterStatus::Superseded | LetterStatus::Dismissed => {}
                LetterStatus::Open | LetterStatus::RedriveRequested => left += 1,
            }
        }
        Redrive {
            id: id.clone(),
            filter: row.filter.clone(),
            is_marking: row.is_marking,
            asked: row.asked,
            sent,
            refused,
            superseded: row.asked.saturating_sub(sent + refused + left + row.cancelled),
            cancelled: row.cancelled,
            left,
            created_at: row.created_at,
        }
    }

    pub(super) fn cancel_redrive(&mut self, app: &AppId, watch: Option<&WatchId>) -> Cancelled {
        for row in self.redrives.values_mut().filter(|row| row.app == *app && row.is_marking) {
            match watch {
                Some(watch) => row.filter.get_or_insert_default().except.push(watch.clone()),
                None => row.is_marking = false,
            }
        }
        let mut cancelled = Cancelled::default();
        let mine = |shown: &DeadLetter| watch.is_none_or(|id| shown.watch == *id);
        let waiting = self.letters.values().filter(|row| {
            row.app == *app && mine(&row.shown) && row.shown.status == LetterStatus::RedriveRequested
        });
        let waiting: Vec<DeadLetterId> = waiting.map(|row| row.shown.id.clone()).collect();
        for id in waiting {
            self.take_back(&id);
            cancelled.reopened += 1;
        }
        for (id, cursor) in &mut self.cursors {
            let owner = self.watches.get(&cursor.watch).map(|watch| &watch.new.app);
            let mine = owner == Some(app) && watch.is_none_or(|watch| cursor.watch == *watch);
            let open = cursor.open.as_ref().filter(|round| round.spec.kind == RoundKind::Redrive);
            if let Some(round) = open.filter(|_| mine) {
                cursor.cancel = Some(round.number);
                cancelled.ending.push(id.clone());
            }
        }
        cancelled
    }

    /// A letter that is open again belongs to no redrive; its own counts it as cancelled.
    pub(super) fn take_back(&mut self, id: &DeadLetterId) {
        let Some(row) = self.letters.get_mut(id) else { return };
        row.shown.status = LetterStatus::Open;
        let redrive = row.shown.redrive.take();
        if let Some(redrive) = redrive.and_then(|redrive| self.redrives.get_mut(&redrive)) {
            redrive.cancelled += 1;
        }
    }
}
