//! Tokens of apps and of the staff: made, found by their public part, revoked.

use std::sync::LazyLock;

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult, QueryResult};
use tidings_actors::{
    ports::{
        APP_TOKENS_MAX, AccessToken, App, DEAD_TOKENS_KEPT, STAFF_TOKENS_MAX, StoreError, TokenOwner,
        TokensOf,
    },
    time::Timestamp,
};
use tidings_entity::{
    access_token, app, app_key,
    id::{AppId, Sha256Hash, TokenId},
};

use crate::{
    Context, apps,
    error::{OfTable, undecodable},
    rows,
};

/// What the token of a registration is called.
const ONBOARDING: &str = "onboarding";

/// The token that an app is registered with: it has the moment and the randomness of the app's id.
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

/// Whose: a condition over the first value.
fn owned(of: &TokensOf) -> (&'static str, sea_orm::Value) {
    match of {
        TokensOf::App(app) => ("app_id = $1", app.clone().into()),
        // The value is asked for as well, so that both conditions have the same places.
        TokensOf::Staff => ("app_id is null and '' = $1", "".into()),
    }
}

/// Makes a token; dead ones of its owner that are too many go.
pub(crate) async fn create(transaction: &DatabaseTransaction, token: &AccessToken) -> Result<(), StoreError> {
    let (whose, owner) = owned(&token.owner.of());
    if let TokenOwner::App(app) = &token.owner {
        let text = "select count(*) from app where id = $1";
        if rows::number(transaction, "app", text, vec![app.clone().into()]).await? == 0 {
            return Err(StoreError::NotFound);
        }
    }
    let most = match token.owner {
        TokenOwner::App(_) => APP_TOKENS_MAX,
        TokenOwner::Staff(_) => STAFF_TOKENS_MAX,
    };
    let live = "revoked_at is null and (expires_at is null or expires_at > $2)";
    let text = format!("select count(*) from access_token where {whose} and {live}");
    let values = || vec![owner.clone(), token.created_at.0.into()];
    if rows::number(transaction, "access_token", &text, values()).await? >= rows::signed(most) {
        return Err(StoreError::Conflict(format!("{most} tokens are live; revoke one of them first")));
    }
    let text = format!(
        "delete from access_token where {whose} and not ({live}) and id not in
         (select id from access_token where {whose} and not ({live}) order by id desc limit $3)"
    );
    let values = [values(), vec![rows::signed(DEAD_TOKENS_KEPT).into()]].concat();
    rows::execute(transaction, "access_token", &text, values).await?;
    let (app_id, role) = match &token.owner {
        TokenOwner::App(app) => (Some(app.clone()), None),
        TokenOwner::Staff(role) => (None, Some(*role)),
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
    rows::insert(transaction, "access_token", vec![row]).await
}

/// One search of the unique index, whatever there is. Every request asks: the token, its app and the keys of
/// that are one statement.
pub(crate) static FIND: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select {}, {}, {} from access_token t
         left join app a on a.id = t.app_id
         left join app_key k on k.app_id = a.id and (k.expires_at is null or k.expires_at > $2)
         where t.public_id = $1 order by k.ordinal desc",
        rows::columns::<access_token::Entity>("t"),
        rows::columns::<app::Entity>("a"),
        rows::columns::<app_key::Entity>("k"),
    )
});

/// The token with this public part; of an app with that app.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    context: &Context,
    public_id: &str,
) -> Result<Option<(AccessToken, Option<App>)>, StoreError> {
    let values = vec![public_id.into(), context.clock.now().0.into()];
    let found = rows::mixed(connection, "access_token", &FIND, values).await?;
    let Some(first) = found.first() else { return Ok(None) };
    let token = shown(access_token::Model::from_query_result(first, "t_").of("access_token")?)?;
    let app = part::<app::Model>(first, "app", "a_", "id")?;
    let keys = found.iter().filter_map(|row| {
        rows::readable_or_logged(part::<app_key::Model>(row, "app_key", "k_", "app_id")).flatten()
    });
    let app = app.map(|app| apps::from_row(context, app, keys.collect())).transpose()?;
    Ok(Some((token, app)))
}

/// What a row holds of a joined table, by a column that is null where it holds nothing.
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
    let text = format!("select * from access_token where {whose} and id > $2 order by id limit $3");
    let values = vec![owner, after.map_or("", TokenId::as_str).into(), rows::signed(limit).into()];
    let found: Vec<access_token::Model> = rows::readable(connection, "access_token", &text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// Ends a token.
pub(crate) async fn revoke(
    transaction: &DatabaseTransaction,
    of: &TokensOf,
    id: &TokenId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (whose, owner) = owned(of);
    let text =
        format!("update access_token set revoked_at = coalesce(revoked_at, $3) where {whose} and id = $2");
    let values = vec![owner, id.clone().into(), at.0.into()];
    match rows::execute(transaction, "access_token", &text, values).await? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

/// Remembers a use; a late word never takes a newer one back.
pub(crate) async fn note_use(
    transaction: &DatabaseTransaction,
    id: &TokenId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update access_token set last_used_at = $2
                where id = $1 and (last_used_at is null or last_used_at < $2)";
    rows::execute(transaction, "access_token", text, vec![id.clone().into(), at.0.into()]).await.map(drop)
}

fn shown(row: access_token::Model) -> Result<AccessToken, StoreError> {
    let owner = match (row.app_id, row.role) {
        (Some(app), None) => TokenOwner::App(app),
        (None, Some(role)) => TokenOwner::Staff(role),
        _ => return Err(undecodable("access_token", "a token is an app's or the staff's")),
    };
    Ok(AccessToken {
        id: row.id,
        owner,
        name: row.name,
        public_id: row.public_id,
        hash: row.hash,
        expires_at: row.expires_at.map(Timestamp),
        last_used_at: row.last_used_at.map(Timestamp),
        revoked_at: row.revoked_at.map(Timestamp),
        created_at: Timestamp(row.created_at),
    })
}
