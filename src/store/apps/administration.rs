//! The calls that only the HTTP handlers make: tokens, the audit log, and searches over all apps.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use tidings_actors::{
    model::filter::Filter,
    ports::{
        AccessToken, Administration, App, AttemptRecord, AuditEntry, AuditFilter, AuditKept, AuditRow,
        DatabaseUse, LetterFilter, LettersOfAll, Session, SignIn, SourceLine, StoreError, TokensOf, Watch,
        WatchFilter,
    },
    time::Timestamp,
};
use tidings_entity::id::{AppId, DeadLetterId, RepositoryId, Sha256Hash, SourceId, TokenId, WatchId};

use super::{sessions, sign_ins, tokens};
use crate::{
    SqlStore, apps, audit,
    database::rows::{self, filter},
    lanes::letters::{attempts, letters_of_all},
    ledger,
    port::transact,
    watching::watches::{self, watch_search},
};

#[async_trait]
impl Administration for SqlStore {
    async fn create_token(&self, token: &AccessToken) -> Result<(), StoreError> {
        let token = token.clone();
        transact!(self, |transaction| tokens::create(transaction, &token).await)
    }

    async fn find_token(&self, public_id: &str) -> Result<Option<(AccessToken, Option<App>)>, StoreError> {
        tokens::find(&self.readers, &self.context, public_id).await
    }

    async fn tokens(
        &self,
        of: &TokensOf,
        after: Option<&TokenId>,
        limit: u64,
    ) -> Result<Vec<AccessToken>, StoreError> {
        tokens::list(&self.readers, of, after, limit).await
    }

    async fn revoke_token(&self, of: &TokensOf, id: &TokenId, at: Timestamp) -> Result<(), StoreError> {
        let (of, id) = (of.clone(), id.clone());
        transact!(self, |transaction| tokens::revoke(transaction, &of, &id, at).await)
    }

    async fn note_use(&self, id: &TokenId, at: Timestamp) -> Result<(), StoreError> {
        let id = id.clone();
        transact!(self, |transaction| tokens::note_use(transaction, &id, at).await)
    }

    async fn apps_named(&self, name: &str, limit: u64) -> Result<Vec<AppId>, StoreError> {
        #[derive(FromQueryResult)]
        struct Named {
            id: AppId,
        }
        let text = "select id from app where name = $1 order by id limit $2";
        let values = vec![name.into(), rows::signed(limit).into()];
        let found: Vec<Named> = rows::all(&self.readers, "app", text, values).await?;
        Ok(found.into_iter().map(|row| row.id).collect())
    }

    async fn begin_session(&self, session: &Session) -> Result<(), StoreError> {
        let session = session.clone();
        transact!(self, |transaction| sessions::begin(transaction, &session).await)
    }

    async fn find_session(
        &self,
        hash: &Sha256Hash,
        now: Timestamp,
    ) -> Result<Option<(Session, Option<String>)>, StoreError> {
        sessions::find(&self.readers, hash, now).await
    }

    async fn end_session(&self, hash: &Sha256Hash) -> Result<(), StoreError> {
        let hash = *hash;
        transact!(self, |transaction| sessions::end(transaction, &hash).await)
    }

    async fn end_sessions(&self, token: Option<&TokenId>) -> Result<u64, StoreError> {
        let token = token.cloned();
        transact!(self, |transaction| sessions::end_all(transaction, token.as_ref()).await)
    }

    async fn end_sessions_of(&self, subject: &str) -> Result<u64, StoreError> {
        let subject = subject.to_owned();
        transact!(self, |transaction| sessions::end_all_of(transaction, &subject).await)
    }

    async fn end_sessions_of_others(&self, origins: &[String]) -> Result<u64, StoreError> {
        let origins = origins.to_vec();
        transact!(self, |transaction| sessions::end_all_but(transaction, &origins).await)
    }

    async fn begin_sign_in(&self, sign_in: &SignIn, now: Timestamp) -> Result<(), StoreError> {
        let sign_in = sign_in.clone();
        transact!(self, |transaction| sign_ins::begin(transaction, &sign_in, now).await)
    }

    async fn take_sign_in(
        &self,
        state: &Sha256Hash,
        issuer: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (state, issuer) = (*state, issuer.to_owned());
        transact!(self, |transaction| sign_ins::take(transaction, &state, &issuer, now).await)
    }

    async fn record(&self, entry: &AuditEntry, kept: AuditKept) -> Result<(), StoreError> {
        let entry = entry.clone();
        transact!(self, |transaction, context| audit::append(transaction, context, entry, kept).await)
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        audit::list(&self.readers, filter, before, limit).await
    }

    async fn audit_chain(&self, after: i64, limit: u64) -> Result<Vec<AuditRow>, StoreError> {
        audit::chain(&self.readers, after, limit).await
    }

    async fn rename_ledgers(&self, of: Option<&AppId>) -> Result<(), StoreError> {
        let mut after: Option<AppId> = None;
        loop {
            let (of, behind) = (of.cloned(), after.take());
            after = transact!(self, |transaction, context| {
                ledger::rename(transaction, context, of.as_ref(), behind.as_ref()).await
            })?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn all_watches(
        &self,
        asked: &WatchFilter,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let mut condition = "w.id > $1".to_owned();
        let mut values: Vec<Value> = vec![after.map_or("", WatchId::as_str).into()];
        if let Some(word) = asked.condition {
            condition.push_str(" and ");
            condition.push_str(&watch_search::meaning(word));
        }
        if let Some(app) = &asked.app {
            values.push(app.clone().into());
            condition.push_str(&format!(" and w.app_id = ${}", values.len()));
        }
        if let Some(repository) = &asked.repository {
            values.push(repository.clone().into());
            condition.push_str(&format!(" and w.repository_id = ${}", values.len()));
        }
        if let Some(q) = &asked.q {
            let backend = self.readers.get_database_backend();
            let meant = filter::condition(backend, q, watch_search::column, &mut values);
            condition.push_str(&format!(" and ({meant})"));
        }
        watches::list(&self.snapshot().await?, &condition, values, limit).await
    }

    async fn filtered_apps(
        &self,
        filter: &Filter,
        after: Option<&AppId>,
        limit: u64,
    ) -> Result<Vec<App>, StoreError> {
        apps::list(&self.snapshot().await?, &self.context, Some(filter), after, limit).await
    }

    async fn all_sources(
        &self,
        failing: bool,
        after: Option<&SourceId>,
        limit: u64,
    ) -> Result<Vec<SourceLine>, StoreError> {
        let only = if failing { "and s.last_error is not null" } else { "" };
        let text = format!(
            "select s.id, s.repository_id, r.url, s.moved_to, c.app_id, s.last_change, s.last_error,
               (select count(*) from watch w where w.source_id = s.id) as watches
             from source s join repository r on r.id = s.repository_id
             left join credential c on c.id = s.credential_id
             where s.id > $1 {only} order by s.id limit $2"
        );
        let values = vec![after.map_or("", SourceId::as_str).into(), rows::signed(limit).into()];
        let found: Vec<SourceRow> = rows::readable(&self.readers, "source", &text, values).await?;
        found.into_iter().map(line).collect()
    }

    async fn all_dead_letters(
        &self,
        app: Option<&AppId>,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LettersOfAll, StoreError> {
        letters_of_all::list(&self.snapshot().await?, app, filter, before, limit).await
    }

    async fn attempts_at_heads(&self, watches: &[WatchId]) -> Result<Vec<AttemptRecord>, StoreError> {
        attempts::of_heads(&self.readers, watches).await
    }

    async fn database_use(&self) -> Result<DatabaseUse, StoreError> {
        let snapshot = self.snapshot().await?;
        let mut counted = BTreeMap::new();
        for table in TABLES {
            let text = format!("select count(*) from {table}");
            let count = rows::number(&snapshot, table, &text, Vec::new()).await?;
            counted.insert((*table).to_owned(), rows::unsigned(table, count)?);
        }
        let (bytes, free) = match snapshot.get_database_backend() {
            DbBackend::Sqlite => (
                "select page_count * page_size from pragma_page_count(), pragma_page_size()",
                "select freelist_count * page_size from pragma_freelist_count(), pragma_page_size()",
            ),
            // PostgreSQL does not report free space inside its files without an extension.
            _ => (OWN_BYTES, "select cast(0 as bigint)"),
        };
        let bytes = rows::number(&snapshot, "database", bytes, Vec::new()).await?;
        let free = rows::number(&snapshot, "database", free, Vec::new()).await?;
        Ok(DatabaseUse {
            bytes: rows::unsigned("database", bytes)?,
            free_bytes: rows::unsigned("database", free)?,
            rows: counted,
        })
    }
}

/// The disk space of our tables on PostgreSQL, with their partitions, indexes and long values; the database
/// may have other tables.
const OWN_BYTES: &str = "with recursive own(id) as (
      select oid from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')
        and relname in ('access_token', 'app', 'app_key', 'artifact', 'attempt', 'audit', 'blob', 'breaker',
          'canary', 'commit_status', 'credential', 'cursor', 'dead_letter', 'entry', 'entry_fold', 'head',
          'hook', 'idempotency', 'key_share', 'lease', 'ledger', 'narrowed_token', 'queue', 'receipt',
          'receipt_body',
          'redrive', 'replica', 'repository', 'restoration', 'round', 'round_base',
          'schedule',
          'seaql_migrations', 'settled', 'sink', 'source', 'subscription', 'task', 'task_body', 'task_change',
          'task_claim', 'view', 'watch', 'worker_subscription')
      union select inhrelid from own join pg_inherits on inhparent = id)
    select cast(coalesce(sum(pg_total_relation_size(id)), 0) as bigint) from own";

/// Tables whose rows are counted: those that grow with the use of the server.
const TABLES: &[&str] = &[
    "access_token",
    "app",
    "artifact",
    "attempt",
    "audit",
    "blob",
    "breaker",
    "commit_status",
    "credential",
    "cursor",
    "dead_letter",
    "entry",
    "head",
    "hook",
    "idempotency",
    "narrowed_token",
    "queue",
    "receipt",
    "receipt_body",
    "redrive",
    "repository",
    "round",
    "schedule",
    "settled",
    "sink",
    "source",
    "subscription",
    "task",
    "task_claim",
    "view",
    "watch",
    "worker_subscription",
];

#[derive(FromQueryResult)]
struct SourceRow {
    id: SourceId,
    repository_id: RepositoryId,
    url: String,
    moved_to: Option<String>,
    app_id: Option<AppId>,
    last_change: i64,
    last_error: Option<String>,
    watches: i64,
}

fn line(row: SourceRow) -> Result<SourceLine, StoreError> {
    Ok(SourceLine {
        id: row.id,
        repository: row.repository_id,
        url: row.url,
        moved_to: row.moved_to,
        app: row.app_id,
        watches: rows::unsigned("source", row.watches)?,
        last_change: Timestamp(row.last_change),
        last_error: row.last_error,
    })
}
