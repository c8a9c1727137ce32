//! Ended rounds in the in-memory store.

use std::{collections::BTreeMap, ops::Range};

use tidings_entity::id::{AppId, CursorId};

use super::rows::{CursorRow, State};
use crate::{
    model::round::{DeliveryId, Round},
    ports::{Fates, PastRound, RoundFacts, RoundFilter, RoundPlace, StoreError, Tries},
    time::Timestamp,
};

impl State {
    pub(super) fn shorten_history(&mut self, most: u64, limit: u64) -> u64 {
        let mut ended: BTreeMap<AppId, Vec<(Timestamp, CursorId, i64)>> = BTreeMap::new();
        for (id, cursor) in &self.cursors {
            let Some(watch) = self.watches.get(&cursor.watch) else { continue };
            let own = cursor.ended.iter().map(|(number, at)| (*at, id.clone(), *number));
            ended.entry(watch.new.app.clone()).or_default().extend(own);
        }
        let mut left = limit;
        for mut rounds in ended.into_values() {
            rounds.sort_by(|one, other| other.cmp(one));
            let mut rows = 0;
            for (_, cursor, number) in rounds {
                rows += 1 + self.settled.count(&cursor, number) + self.tries_of(&cursor, number);
                let is_named = self
                    .letters
                    .values()
                    .any(|row| row.is_open() && row.shown.cursor == cursor && row.shown.round == number);
                if rows > most && !is_named {
                    left -= self.forget_round(&cursor, number, left);
                }
            }
        }
        limit - left
    }

    fn tries_of(&self, cursor: &CursorId, number: i64) -> u64 {
        self.attempts.iter().filter(|row| row.cursor == *cursor && row.round == number).count() as u64
    }

    fn forget_round(&mut self, cursor: &CursorId, number: i64, limit: u64) -> u64 {
        let mut gone = 0;
        self.attempts.retain(|row| {
            let goes = row.cursor == *cursor && row.round == number && gone < limit;
            gone += u64::from(goes);
            !goes
        });
        gone += self.settled.remove(cursor, number, limit - gone);
        if gone < limit
            && let Some(row) = self.cursors.get_mut(cursor)
        {
            row.ended.remove(&number);
            row.rounds.remove(&number);
            gone += 1;
        }
        gone
    }

    fn own_cursor(&self, app: &AppId, id: &CursorId) -> Result<&CursorRow, StoreError> {
        let owner = |cursor: &CursorRow| self.watches.get(&cursor.watch).map(|watch| &watch.new.app);
        self.cursors.get(id).filter(|cursor| owner(cursor) == Some(app)).ok_or(StoreError::NotFound)
    }

    pub(super) fn shown_rounds(&self, app: &AppId, filter: &RoundFilter, limit: u64) -> Vec<RoundFacts> {
        let is_meant = |facts: &RoundFacts| {
            let key = (facts.number, facts.cursor.clone());
            filter.watch.as_ref().is_none_or(|watch| *watch == facts.watch)
                && filter.cursor.as_ref().is_none_or(|cursor| *cursor == facts.cursor)
                && !(filter.is_open && facts.ended_at.is_some())
                && filter.from.is_none_or(|from| facts.ended_at.is_none_or(|ended| ended >= from))
                && filter.to.is_none_or(|to| facts.began_at < to)
                && match &filter.place {
                    RoundPlace::Newest => true,
                    RoundPlace::Before(number, cursor) => key < (*number, cursor.clone()),
                    RoundPlace::At(number, cursor) => key <= (*number, cursor.clone()),
                    RoundPlace::From(number) => facts.number >= *number,
                }
        };
        let own = self.cursors.iter().filter(|(id, _)| self.own_cursor(app, id).is_ok());
        let all =
            own.flat_map(|(_, cursor)| cursor.rounds.values().map(|round| self.round_facts(cursor, round)));
        let mut found: Vec<RoundFacts> = all.filter(is_meant).collect();
        found.sort_by_key(|facts| (facts.number, facts.cursor.clone()));
        if !matches!(filter.place, RoundPlace::From(_)) {
            found.reverse();
        }
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        found
    }

    pub(super) fn shown_rounds_of_all(&self, filter: &RoundFilter, limit: u64) -> Vec<(AppId, RoundFacts)> {
        let mut found: Vec<(AppId, RoundFacts)> = Vec::new();
        for app in self.apps.keys() {
            found.extend(self.shown_rounds(app, filter, limit).into_iter().map(|facts| (app.clone(), facts)));
        }
        found.sort_by_key(|(_, facts)| std::cmp::Reverse((facts.number, facts.cursor.clone())));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        found
    }

    fn round_facts(&self, cursor: &CursorRow, round: &Round) -> RoundFacts {
        let parked = self
            .letters
            .values()
            .filter(|row| row.shown.cursor == round.cursor && row.shown.round == round.number);
        RoundFacts {
            watch: cursor.watch.clone(),
            cursor: round.cursor.clone(),
            number: round.number,
            kind: round.spec.kind,
            branch: round.branch.clone(),
            held: round.spec.held.as_ref().map(|end| end.commit),
            target: round.spec.target.as_ref().map(|end| end.commit),
            deletes: round.summary.deletes,
            creates: round.summary.creates,
            updates: round.summary.updates,
            history_rewritten: round.history_rewritten,
            skipped_commits: round.skipped_commits,
            complete: round.complete,
            position: cursor.position(round),
            parked: parked.count() as u64,
            began_at: round.began_at,
            ended_at: cursor.ended.get(&round.number).copied(),
        }
    }

    pub(super) fn past_round(
        &self,
        app: &AppId,
        id: &CursorId,
        number: i64,
    ) -> Result<PastRound, StoreError> {
        let cursor = self.own_cursor(app, id)?;
        let round = cursor.rounds.get(&number).ok_or(StoreError::NotFound)?;
        let mut round = Round { position: cursor.position(round), ..Round::clone(round) };
        round.spec.letters = self.bound_letters(id, number);
        let watch = self.watches.get(&cursor.watch).ok_or(StoreError::NotFound)?;
        let source = self.sources.get(&watch.source).ok_or(StoreError::NotFound)?;
        Ok(PastRound {
            watch: cursor.watch.clone(),
            remote: self.remote(source, vec![watch.new.app.clone()]),
            round,
            ended_at: cursor.ended.get(&number).copied(),
        })
    }

    pub(super) fn fates(&self, id: &CursorId, number: i64, range: &Range<u64>) -> Result<Fates, StoreError> {
        let cursor = self.cursors.get(id).ok_or(StoreError::NotFound)?;
        let round = cursor.rounds.get(&number).ok_or(StoreError::NotFound)?;
        let own =
            self.letters.values().map(|row| &row.shown).filter(|shown| {
                shown.cursor == *id && shown.round == number && range.contains(&shown.position)
            });
        let mut letters: Vec<_> = own.cloned().collect();
        letters.sort_by_key(|letter| letter.position);
        let mut attempts: Vec<_> = self
            .attempts
            .iter()
            .filter(|row| row.cursor == *id && row.round == number && range.contains(&row.position))
            .collect();
        attempts.sort_by_key(|row| (row.position, row.number));
        let tries = attempts.chunk_by(|one, other| one.position == other.position).filter_map(|of_change| {
            let last = of_change.last()?;
            let taken = |status: Option<u16>| status.is_some_and(|status| (200..300).contains(&status));
            Some(Tries {
                position: last.position,
                count: of_change.len() as u64,
                acknowledged: of_change.iter().any(|row| taken(row.status)),
                status: last.status,
                at: last.at,
                next_at: last.next_at,
            })
        });
        Ok(Fates {
            position: cursor.position(round),
            is_open: !cursor.ended.contains_key(&number),
            settled: self.settled.of(id, number, range),
            letters,
            tries: tries.collect(),
        })
    }

    pub(super) fn last_parked(&self, id: &CursorId, number: i64, below: u64) -> Option<u64> {
        let own = self.letters.values().map(|row| &row.shown);
        let own = own.filter(|shown| shown.cursor == *id && shown.round == number && shown.position < below);
        own.map(|shown| shown.position).max()
    }

    pub(super) fn delivery(&self, app: &AppId, id: &DeliveryId) -> Option<(CursorId, i64, u64)> {
        let parked = self.letters.values().filter(|row| row.app == *app && row.shown.delivery == *id);
        let parked = parked.map(|row| (row.shown.cursor.clone(), row.shown.round, row.shown.position));
        let tried = self.attempts.iter().filter(|row| row.delivery == *id);
        let tried = tried.filter(|row| self.own_cursor(app, &row.cursor).is_ok());
        parked.chain(tried.map(|row| (row.cursor.clone(), row.round, row.position))).next()
    }
}
