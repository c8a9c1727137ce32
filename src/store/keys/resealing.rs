//! Seals values again with the primary key, step by step through the columns in the order of their keys.
//!
//! The progress is in memory only: a value is left if another key sealed it, so the work continues after a
//! kill, and new values are sealed with the primary key anyway. A step reads, opens and seals beside the
//! writer; its transaction has only updates by key, each conditional on the value that was read.

use data_encoding::HEXLOWER;
use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, Value};
use tidings_actors::ports::{Resealed, StoreError};
use tidings_entity::id::AppId;
use tidings_secrets::SealedField;
use tracing::warn;

use super::{
    key_shares,
    sealed::{self, COLUMNS, SealedColumn},
};
use crate::{
    Context, SqlStore,
    database::{error::undecodable, rows},
};

/// The most values in one transaction, which others wait for.
const TRANSACTION_MAX: u64 = 100;

/// The progress of sealing all values again with the primary key.
#[derive(Debug, Default)]
pub(crate) struct Resealing {
    /// The key that seals; another primary key starts the work again.
    primary: String,
    /// Index into [`COLUMNS`], and the last row of it that was looked at.
    column: usize,
    after: Option<(String, String)>,
    /// Values of other keys when the work began, minus those sealed again since.
    left: u64,
    /// The number of these values that cannot be opened.
    unreadable: u64,
}

impl SqlStore {
    /// One step: as many values as allowed.
    pub(crate) async fn reseal_step(
        &self,
        at: &mut Resealing,
        most_of_all: u64,
    ) -> Result<Resealed, StoreError> {
        let primary = self.context.keyring.status().primary;
        if at.primary != primary {
            let left = self.sealed_by_others(&primary).await?;
            *at = Resealing { primary: primary.clone(), left, ..Resealing::default() };
        }
        let mut done = Resealed::default();
        while done.resealed < most_of_all
            && let Some(column) = COLUMNS.get(at.column)
        {
            let most = (most_of_all - done.resealed).min(TRANSACTION_MAX);
            let found = column.others(&self.readers, at, most).await?;
            let Some(last) = found.last() else {
                (at.column, at.after) = (at.column + 1, None);
                continue;
            };
            let after = Some((last.first.clone(), last.second.clone()));
            let (count, mut fresh) = (found.len(), Vec::with_capacity(found.len()));
            for row in found {
                fresh.extend(column.sealed_anew(&self.context, row)?);
            }
            let unreadable = (count - fresh.len()) as u64;
            let key = primary.clone();
            let replace = self.writer.verb(move |transaction, context| {
                Box::pin(async move { column.replace(transaction, context, &key, fresh).await })
            });
            let Some(written) = replace.await? else {
                // Another key seals by now.
                *at = Resealing::default();
                return Box::pin(self.reseal_step(at, most_of_all)).await;
            };
            at.after = after;
            at.unreadable += unreadable;
            at.left = at.left.saturating_sub(written);
            done.resealed += written;
        }
        (done.left, done.unreadable) = (at.left, at.unreadable);
        if at.column == COLUMNS.len() {
            // At the end the values are counted: some may have been sealed meanwhile.
            done.left = self.sealed_by_others(&at.primary).await?;
            *at = Resealing::default();
        }
        Ok(done)
    }

    async fn sealed_by_others(&self, primary: &str) -> Result<u64, StoreError> {
        let uses = sealed::by_key(&self.snapshot().await?).await?;
        Ok(uses.iter().filter(|(key, _)| *key != primary).map(|(_, count)| count).sum())
    }
}

/// A sealed value with the two parts of its row's key; the second may be empty.
#[derive(FromQueryResult)]
struct SealedRow {
    first: String,
    second: String,
    sealed: Vec<u8>,
}

/// A value sealed by the primary key, and its row.
struct Fresh {
    row: SealedRow,
    sealed: Vec<u8>,
    fingerprint: Option<String>,
}

impl SealedColumn {
    /// The next values of other keys, in the order of their rows.
    async fn others(
        &self,
        connection: &impl ConnectionTrait,
        at: &Resealing,
        most: u64,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let Self { table, column, key: (first, second), order, row: (key, parts), .. } = self;
        let primary =
            HEXLOWER.decode(at.primary.as_bytes()).map_err(|error| undecodable("keyring", error))?;
        let mut values: Vec<Value> = vec![primary.into()];
        let beyond = at.after.as_ref().map_or_else(String::new, |(first, second)| {
            values.extend([first.clone().into(), second.clone().into()]);
            format!("and {key} > {parts}")
        });
        values.push(rows::signed(most).into());
        let text = format!(
            "select {first} as first, {second} as second, {column} as sealed from {table}
             where {column} is not null and substr({column}, 2, 4) <> $1 {beyond}
             order by {order} limit ${}",
            values.len()
        );
        rows::all(connection, table, &text, values).await
    }

    /// A value sealed by the primary key; `None` if the old value cannot be opened.
    fn sealed_anew(&self, context: &Context, row: SealedRow) -> Result<Option<Fresh>, StoreError> {
        let Self { table, column, .. } = self;
        let name = (self.place)(&row.first, &row.second);
        let place = SealedField { table, column, row: &name };
        let secret = match context.keyring.open_sealed(&place, &row.sealed) {
            Ok(secret) => secret,
            Err(error) => {
                warn!("a value of {table} ({name}) cannot be sealed again: {error}");
                return Ok(None);
            }
        };
        let sealed = context.keyring.seal(&place, &secret, &*context.random);
        let fingerprint = if *table == "credential" {
            // The fingerprint of an older key can be found only while that key is in the keyring.
            let app: AppId = row.second.parse().map_err(|error| undecodable(table, error))?;
            context.keyring.fingerprints(&app, &secret).into_iter().next()
        } else {
            None
        };
        Ok(Some(Fresh { row, sealed, fingerprint }))
    }

    /// Replaces the values that were read, if they are still there. Returns their number. Replaces nothing if
    /// another key seals by now, because the key of these values may be retired at any moment.
    async fn replace(
        &self,
        transaction: &DatabaseTransaction,
        context: &Context,
        primary: &str,
        fresh: Vec<Fresh>,
    ) -> Result<Option<u64>, StoreError> {
        if context.keyring.status().primary != primary {
            return Ok(None);
        }
        key_shares::may_seal(transaction, &context.keyring).await?;
        let Self { table, column, row: (key, parts), .. } = self;
        let mut written = 0;
        for Fresh { row, sealed, fingerprint } in fresh {
            let mut values: Vec<Value> =
                vec![sealed.into(), row.first.into(), row.second.into(), row.sealed.into()];
            let mut set = format!("{column} = $1");
            if let Some(fingerprint) = fingerprint {
                set.push_str(", fingerprint = $5");
                values.push(fingerprint.into());
            }
            let text = format!("update {table} set {set} where {key} = {parts} and {column} = $4");
            written += rows::execute(transaction, table, &text, values).await?;
        }
        Ok(Some(written))
    }
}
