//! Tokens of apps and of the staff: made, found by their public part, revoked.

use std::sync::LazyLock;

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, QueryResult};
use tidings_actors::{
    ports::{
        APP_TOKENS_MAX, AccessToken, App, DEAD_TOKENS_KEPT, NARROWED_TOKENS_MAX, STAFF_TOKENS_MAX,
        StoreError, TokenOwner, TokensOf,
    },
    time::Timestamp,
};
use tidings_entity::{
    access_token, app, app_key,
    id::{AppId, Sha256Hash, TokenId},
    narrowed_token,
};

use super::narrowed;
use crate::{
    Context, apps,
    database::{
        error::{OfTable, undecodable},
        rows,
    },
};

/// The table of tokens that may do all that their owner may.
const WHOLE: &str = "access_token";
/// The table of narrowed tokens.
const NARROWED: &str = "narrowed_token";
/// The name of the token of a registration.
const ONBOARDING: &str = "onboarding";

/// The first token of an app: its id has the moment and the randomness of the app's id.
pub(crate) fn first(
    app: &AppId,
    public_id: &str,
    hash: Sha256Hash,
    at: Timestamp,
) -> Result<access_token::Model, StoreError> {
    let rest = app.as_str().trim_start_matches(AppId::PREFIX);
    let id: TokenId =
        format!("{}{rest}", TokenId::PREFIX).parse().map_err(|error| undecodable("app", error))?;
    Ok(access_token::Model {
        id,
        app_id: Some(app.clone()),
        role: None,
        name: ONBOARDING.to_owned(),
        public_id: public_id.to_owned(),
        hash,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        created_at: at.0,
    })
}

/// The condition in SQL for tokens of this owner, over `$1`, and its value.
fn owned(of: &TokensOf) -> (&'static str, sea_orm::Value) {
    match of {
        TokensOf::App(app) => ("app_id = $1", app.clone().into()),
        // The value is asked for as well, so that both conditions have the same places.
        TokensOf::Staff => ("app_id is null and '' = $1", "".into()),
    }
}

/// Creates a token, and removes the oldest dead tokens beyond the limit of its owner.
pub(crate) async fn create(transaction: &DatabaseTransaction, token: &AccessToken) -> Result<(), StoreError> {
    let (whose, owner) = owned(&token.owner.of());
    if let TokenOwner::App(app) = &token.owner {
        let text = "select count(*) from app where id = $1";
        if rows::number(transaction, "app", text, vec![app.clone().into()]).await? == 0 {
            return Err(StoreError::NotFound);
        }
    }
    let (table, most) = match (&token.narrowing, &token.owner) {
        (Some(_), _) => (NARROWED, NARROWED_TOKENS_MAX),
        (None, TokenOwner::App(_)) => (WHOLE, APP_TOKENS_MAX),
        (None, TokenOwner::Staff(_)) => (WHOLE, STAFF_TOKENS_MAX),
    };
    let live = "revoked_at is null and (expires_at is null or expires_at > $2)";
    let text = format!("select count(*) from {table} where {whose} and {live}");
    let values = || vec![owner.clone(), token.created_at.0.into()];
    if rows::number(transaction, table, &text, values()).await? >= rows::signed(most) {
        return Err(StoreError::Conflict(format!("{most} tokens are live; revoke one of them first")));
    }
    let text = format!(
        "delete from {table} where {whose} and not ({live}) and id not in
         (select id from {table} where {whose} and not ({live}) order by id desc limit $3)"
    );
    let values = [values(), vec![rows::signed(DEAD_TOKENS_KEPT).into()]].concat();
    rows::execute(transaction, table, &text, values).await?;
    if let Some(narrowing) = &token.narrowing {
        return rows::insert(transaction, table, vec![narrowed::row(token, narrowing)]).await;
    }
    let (app_id, role) = match &token.owner {
        TokenOwner::App(app) => (Some(app.clone()), None),
        TokenOwner::Staff(role) => (None, *role),
    };
    let row = access_token::Model {
        id: token.id.clone(),
        app_id,
        role,
        name: token.name.clone(),
        public_id: token.public_id.clone(),
        hash: token.hash,
        expires_at: token.expires_at.map(|end| end.0),
        last_used_at: None,
        revoked_at: None,
        created_at: token.created_at.0,
    };
    rows::insert(transaction, table, vec![row]).await
}

/// Finds a token with one search of the unique index, for known and unknown tokens. Every request runs this:
/// the token, its app and the app's keys in one statement.
pub(crate) static FIND: LazyLock<String> =
    LazyLock::new(|| find_in(WHOLE, &rows::columns::<access_token::Entity>("t")));

/// The same search among narrowed tokens, for a token that was not found by [`FIND`].
pub(crate) static FIND_NARROWED: LazyLock<String> =
    LazyLock::new(|| find_in(NARROWED, &rows::columns::<narrowed_token::Entity>("t")));

fn find_in(table: &str, columns: &str) -> String {
    format!(
        "select {columns}, {}, {} from {table} t
         left join app a on a.id = t.app_id
         left join app_key k on k.app_id = a.id and (k.expires_at is null or k.expires_at > $2)
         where t.public_id = $1 order by k.ordinal desc",
        rows::columns::<app::Entity>("a"),
        rows::columns::<app_key::Entity>("k"),
    )
}

/// The token with this public part; of an app with that app.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    context: &Context,
    public_id: &str,
) -> Result<Option<(AccessToken, Option<App>)>, StoreError> {
    let values = || vec![public_id.into(), context.clock.now().0.into()];
    let mut found = rows::mixed(connection, WHOLE, &FIND, values()).await?;
    let token = if let Some(first) = found.first() {
        shown(access_token::Model::from_query_result(first, "t_").of(WHOLE)?)?
    } else {
        found = rows::mixed(connection, NARROWED, &FIND_NARROWED, values()).await?;
        let Some(first) = found.first() else { return Ok(None) };
        narrowed::shown(narrowed_token::Model::from_query_result(first, "t_").of(NARROWED)?)?
    };
    let Some(first) = found.first() else { return Ok(None) };
    let app = part::<app::Model>(first, "app", "a_", "id")?;
    let keys = found.iter().filter_map(|row| {
        rows::readable_or_logged(part::<app_key::Model>(row, "app_key", "k_", "app_id")).flatten()
    });
    let app = app.map(|app| apps::from_row(context, app, keys.collect())).transpose()?;
    Ok(Some((token, app)))
}

/// The row of a joined table; `None` if this column of it is null.
fn part<M: FromQueryResult>(
    row: &QueryResult,
    table: &'static str,
    prefix: &str,
    column: &str,
) -> Result<Option<M>, StoreError> {
    let is_there: Option<String> = row.try_get(prefix, column).of(table)?;
    is_there.map(|_| M::from_query_result(row, prefix)).transpose().of(table)
}

/// Tokens of an owner, oldest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    of: &TokensOf,
    after: Option<&TokenId>,
    limit: u64,
) -> Result<Vec<AccessToken>, StoreError> {
    let (whose, owner) = owned(of);
    let text = |table: &str| format!("select * from {table} where {whose} and id > $2 order by id limit $3");
    let values = || vec![owner.clone(), after.map_or("", TokenId::as_str).into(), rows::signed(limit).into()];
    let whole: Vec<access_token::Model> = rows::readable(connection, WHOLE, &text(WHOLE), values()).await?;
    let narrowed: Vec<narrowed_token::Model> =
        rows::readable(connection, NARROWED, &text(NARROWED), values()).await?;
    let tokens = whole.into_iter().map(shown).chain(narrowed.into_iter().map(narrowed::shown));
    let mut tokens: Vec<AccessToken> = tokens.filter_map(rows::readable_or_logged).collect();
    tokens.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
    tokens.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(tokens)
}

/// Revokes a token: it gives no access from this commit on.
pub(crate) async fn revoke(
    transaction: &DatabaseTransaction,
    of: &TokensOf,
    id: &TokenId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (whose, owner) = owned(of);
    for table in [WHOLE, NARROWED] {
        let text =
            format!("update {table} set revoked_at = coalesce(revoked_at, $3) where {whose} and id = $2");
        let values = vec![owner.clone(), id.clone().into(), at.0.into()];
        if rows::execute(transaction, table, &text, values).await? > 0 {
            return Ok(());
        }
    }
    Err(StoreError::NotFound)
}

/// Stores the use of a token; a late write never replaces a newer use.
pub(crate) async fn note_use(
    transaction: &DatabaseTransaction,
    id: &TokenId,
    at: Timestamp,
) -> Result<(), StoreError> {
    for table in [WHOLE, NARROWED] {
        let text = format!(
            "update {table} set last_used_at = $2
             where id = $1 and (last_used_at is null or last_used_at < $2)"
        );
        rows::execute(transaction, table, &text, vec![id.clone().into(), at.0.into()]).await?;
    }
    Ok(())
}

fn shown(row: access_token::Model) -> Result<AccessToken, StoreError> {
    let owner = match (row.app_id, row.role) {
        (Some(app), None) => TokenOwner::App(app),
        (None, Some(role)) => TokenOwner::Staff(Some(role)),
        _ => return Err(undecodable("access_token", "a token is an app's or the staff's")),
    };
    Ok(AccessToken {
        id: row.id,
        owner,
        narrowing: None,
        name: row.name,
        public_id: row.public_id,
        hash: row.hash,
        expires_at: row.expires_at.map(Timestamp),
        last_used_at: row.last_used_at.map(Timestamp),
        revoked_at: row.revoked_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
    })
}
