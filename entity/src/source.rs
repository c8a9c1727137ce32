//! A repository seen with one credential, or with none. Polls, heads and failures belong to it.

use sea_orm::entity::prelude::*;

use crate::id::{CredentialId, RepositoryId, SourceId};

/// One row of `source`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "source")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SourceId,
    /// The repository.
    pub repository_id: RepositoryId,
    /// The credential; null is the anonymous source, at most one per repository.
    pub credential_id: Option<CredentialId>,
    /// The ref that HEAD named last (`refs/heads/main`).
    pub head_ref: Option<String>,
    /// When a head of it moved last (its creation, if never), in unix milliseconds.
    pub last_change: i64,
    /// What the last failed scan said; null after a good one.
    pub last_error: Option<String>,
    /// The normalised address where it is asked; null: where the repository was registered.
    pub moved_to: Option<String>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
