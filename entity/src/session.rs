//! A session: a browser in which a person signed in.

use sea_orm::entity::prelude::*;

use crate::id::{Sha256Hash, TokenId};

/// One row of `session`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session")]
pub struct Model {
    /// SHA-256 of the secret that the browser holds.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Sha256Hash,
    /// The token that the person signed in with; null: the server's own token, a narrowed token, or none.
    pub token_id: Option<TokenId>,
    /// The narrowed token that the person signed in with; null: another kind of token, or none.
    pub narrowed_id: Option<TokenId>,
    /// The person who signed in at an issuer, `jwt:` and a hash; null: the person signed in with a token.
    pub subject: Option<String>,
    /// The name of that issuer.
    pub issuer: Option<String>,
    /// The roles that the issuer gave, separated by spaces.
    pub roles: Option<String>,
    /// SHA-256 of that token: a session ends with another token of the server.
    pub token_hash: Sha256Hash,
    /// When the session began, in Unix milliseconds.
    pub created_at: i64,
    /// When the session ends by itself, in unix milliseconds.
    pub expires_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
