//! A repository seen with one credential, or with none. Polls, heads and failures belong to it.

use sea_orm::entity::prelude::*;

use crate::id::{CredentialId, RepositoryId, SourceId};

/// One row of `source`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "source")]
pub struct Model {
    /// Id of the source, `src_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SourceId,
    /// The repository that is read.
    pub repository_id: RepositoryId,
    /// The credential that the repository is read with; null for the anonymous source, at most one per
    /// repository.
    pub credential_id: Option<CredentialId>,
    /// The ref that HEAD named last (`refs/heads/main`).
    pub head_ref: Option<String>,
    /// When a head of the source last moved, in Unix milliseconds; the creation of the row if none ever did.
    pub last_change: i64,
    /// The text of the last scan's error; null after a scan that succeeded.
    pub last_error: Option<String>,
    /// The normalised address that is scanned since the repository moved; null: the registered address.
    pub moved_to: Option<String>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
