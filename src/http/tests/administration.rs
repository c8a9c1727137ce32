//! What the front door asks of the store for itself, in memory.

use async_trait::async_trait;
use tidings_actors::{ports::*, time::Timestamp};
use tidings_entity::id::{AppId, DeadLetterId, SourceId, TokenId, WatchId};

use super::double::StoreDouble;
use crate::{audit, secrets::AuditKeys};

fn at_most<T>(mut items: Vec<T>, limit: u64) -> Vec<T> {
    items.truncate(usize::try_from(limit).expect("small"));
    items
}

#[async_trait]
impl Administration for StoreDouble {
    async fn create_token(&self, token: &AccessToken) -> Result<(), StoreError> {
        self.open()?.tokens.push(token.clone());
        Ok(())
    }

    async fn find_token(&self, public_id: &str) -> Result<Option<AccessToken>, StoreError> {
        let found = self.open()?.tokens.iter().find(|token| token.public_id == public_id).cloned();
        Ok(found.or_else(|| self.first_token(public_id)))
    }

    async fn tokens(
        &self,
        of: &TokensOf,
        after: Option<&TokenId>,
        limit: u64,
    ) -> Result<Vec<AccessToken>, StoreError> {
        let mut found = self.open()?.tokens.clone();
        found.retain(|token| token.owner.of() == *of && after.is_none_or(|after| token.id > *after));
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(at_most(found, limit))
    }

    async fn revoke_token(&self, of: &TokensOf, id: &TokenId, at: Timestamp) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        let found = rows.tokens.iter_mut().find(|token| token.id == *id && token.owner.of() == *of);
        found.ok_or(StoreError::NotFound)?.revoked_at.get_or_insert(at);
        Ok(())
    }

    async fn note_use(&self, id: &TokenId, at: Timestamp) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        if let Some(token) = rows.tokens.iter_mut().find(|token| token.id == *id) {
            token.last_used_at = Some(at);
        }
        Ok(())
    }

    async fn record(&self, deed: &Deed, _: AuditKept) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        let last = rows.audit.last().map(|row| (row.id, row.hash));
        rows.audit.push(audit::next(last, deed.clone(), &AuditKeys::of_a_test()));
        Ok(())
    }

    async fn audit(
        &self,
        _: &AuditFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let mut found = self.open()?.audit.clone();
        found.retain(|row| before.is_none_or(|before| row.id < before));
        found.reverse();
        Ok(at_most(found, limit))
    }

    async fn audit_chain(&self, after: i64, limit: u64) -> Result<Vec<AuditRow>, StoreError> {
        let mut found = self.open()?.audit.clone();
        found.retain(|row| row.id > after);
        Ok(at_most(found, limit))
    }

    async fn all_watches(
        &self,
        filter: &WatchFilter,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let mut found = self.open()?.watches.clone();
        found.retain(|watch| filter.app.as_ref().is_none_or(|app| watch.app == *app));
        found.retain(|watch| after.is_none_or(|after| watch.id > *after));
        Ok(at_most(found, limit))
    }

    async fn all_sources(
        &self,
        _: bool,
        _: Option<&SourceId>,
        _: u64,
    ) -> Result<Vec<SourceLine>, StoreError> {
        self.open().map(|_| Vec::new())
    }

    async fn all_dead_letters(
        &self,
        app: Option<&AppId>,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LettersOfAll, StoreError> {
        let matcher = filter.matcher().expect("a valid filter");
        let mut letters: Vec<_> = self.open()?.letters.iter().rev().cloned().collect();
        letters.retain(|(owner, letter)| {
            app.is_none_or(|app| app == owner)
                && matcher.admits(letter)
                && before.is_none_or(|before| letter.id < *before)
        });
        let limit = usize::try_from(limit).expect("small");
        let next = letters.get(limit.saturating_sub(1)).filter(|_| letters.len() > limit);
        let next = next.map(|(_, letter)| letter.id.clone());
        letters.truncate(limit);
        Ok(LettersOfAll { letters, next })
    }

    async fn attempts_at_heads(&self, watches: &[WatchId]) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = self.open()?;
        Ok(rows
            .at_heads
            .iter()
            .filter(|(watch, _)| watches.contains(watch))
            .map(|(_, row)| row.clone())
            .collect())
    }

    async fn database_use(&self) -> Result<DatabaseUse, StoreError> {
        self.open().map(|_| DatabaseUse::default())
    }
}
