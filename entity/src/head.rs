//! The commit of one followed ref in the last `ls-refs` of a source.

use sea_orm::entity::prelude::*;

use crate::id::{ObjectId, SourceId};

/// One row of `head`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "head")]
pub struct Model {
    /// The source whose refs were listed.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source_id: SourceId,
    /// The full ref name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub ref_name: String,
    /// The commit; for an annotated tag the peeled one.
    pub commit_id: ObjectId,
    /// When the ref came to this commit, in unix milliseconds.
    pub moved_at: i64,
    /// Why the commit cannot be taken whole, if it cannot: nothing is concluded from its being here.
    pub fault: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
