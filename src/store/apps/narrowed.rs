//! The rows of narrowed tokens. They are in a table of their own: a replica of the previous version must not
//! read one as a whole token of its owner.

use tidings_actors::{
    model::permission::narrowing::Narrowing,
    ports::{AccessToken, StoreError, TokenOwner},
    time::Timestamp,
};
use tidings_entity::narrowed_token::Model;

/// The row of a token that is narrowed.
pub(super) fn row(token: &AccessToken, narrowing: &Narrowing) -> Model {
    let app_id = match &token.owner {
        TokenOwner::App(app) => Some(app.clone()),
        TokenOwner::Staff(_) => None,
    };
    Model {
        id: token.id.clone(),
        app_id,
        role: narrowing.role.clone(),
        permissions: narrowing.permissions.join(" "),
        commands: narrowing.commands.as_ref().map(|commands| commands.join(" ")),
        name: token.name.clone(),
        public_id: token.public_id.clone(),
        hash: token.hash,
        expires_at: token.expires_at.map(|end| end.0),
        last_used_at: None,
        revoked_at: None,
        created_at: token.created_at.0,
    }
}

/// The token of a row.
pub(super) fn shown(row: Model) -> Result<AccessToken, StoreError> {
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
    let narrowing = Narrowing {
        role: row.role,
        permissions: words(&row.permissions),
        commands: row.commands.as_deref().map(words),
    };
    Ok(AccessToken {
        id: row.id,
        owner: row.app_id.map_or(TokenOwner::Staff(None), TokenOwner::App),
        narrowing: Some(narrowing),
        name: row.name,
        public_id: row.public_id,
        hash: row.hash,
        expires_at: row.expires_at.map(Timestamp),
        last_used_at: row.last_used_at.map(Timestamp),
        revoked_at: row.revoked_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
    })
}
