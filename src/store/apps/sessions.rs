//! Sessions: browsers that stand for a token until they end. A session names its token and gives no access by
//! itself: the caller is found by the token, so that a revoked token ends all of its sessions.

use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};
use tidings_actors::{
    ports::{SESSIONS_MAX, Session, SessionSubject, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{Sha256Hash, TokenId},
    session,
};

use crate::database::rows;

/// The sessions of a token: a condition over the first value.
fn of_token(token: Option<&TokenId>) -> (&'static str, sea_orm::Value) {
    match token {
        // A session of a person at an issuer has no token either.
        Some(token) => ("(token_id = $1 or narrowed_id = $1)", token.clone().into()),
        // The value is asked for as well, so that both conditions have the same places.
        None => ("token_id is null and narrowed_id is null and subject is null and '' = $1", "".into()),
    }
}

/// Inserts the row of a session.
pub(super) async fn begin(transaction: &DatabaseTransaction, session: &Session) -> Result<(), StoreError> {
    let (token_id, narrowed_id) = match &session.token {
        None => (None, None),
        Some(token) if is_in(transaction, "access_token", token).await? => (Some(token.clone()), None),
        Some(token) if is_in(transaction, "narrowed_token", token).await? => (None, Some(token.clone())),
        Some(_) => return Err(StoreError::NotFound),
    };
    let text = "delete from session where expires_at <= $1";
    rows::execute(transaction, "session", text, vec![session.created_at.0.into()]).await?;
    let (whose, token) = match &session.subject {
        Some(subject) => ("subject = $1", subject.id.clone().into()),
        None => of_token(session.token.as_ref()),
    };
    let text = format!(
        "delete from session where {whose} and hash not in
         (select hash from session where {whose} order by created_at desc, hash limit $2)"
    );
    let values = vec![token, rows::signed(SESSIONS_MAX - 1).into()];
    rows::execute(transaction, "session", &text, values).await?;
    let row = session::Model {
        hash: session.hash,
        token_id,
        narrowed_id,
        subject: session.subject.as_ref().map(|subject| subject.id.clone()),
        issuer: session.subject.as_ref().map(|subject| subject.issuer.clone()),
        roles: session.subject.as_ref().map(|subject| subject.roles.join(" ")),
        token_hash: session.token_hash,
        created_at: session.created_at.0,
        expires_at: session.expires_at.0,
    };
    rows::insert(transaction, "session", vec![row]).await
}

async fn is_in(
    transaction: &DatabaseTransaction,
    table: &'static str,
    token: &TokenId,
) -> Result<bool, StoreError> {
    let text = format!("select count(*) from {table} where id = $1");
    Ok(rows::number(transaction, table, &text, vec![token.clone().into()]).await? > 0)
}

/// A session with the public part of its token.
#[derive(FromQueryResult)]
struct Found {
    hash: Sha256Hash,
    token_id: Option<TokenId>,
    token_hash: Sha256Hash,
    created_at: i64,
    expires_at: i64,
    public_id: Option<String>,
    subject: Option<String>,
    issuer: Option<String>,
    roles: Option<String>,
}

/// The session with this hash, if it has not ended.
pub(super) async fn find(
    connection: &impl ConnectionTrait,
    hash: &Sha256Hash,
    now: Timestamp,
) -> Result<Option<(Session, Option<String>)>, StoreError> {
    let text = "select s.hash, coalesce(s.token_id, s.narrowed_id) as token_id, s.token_hash, s.created_at,
                  s.expires_at, s.subject, s.issuer, s.roles, coalesce(t.public_id, n.public_id) as public_id
                from session s left join access_token t on t.id = s.token_id
                left join narrowed_token n on n.id = s.narrowed_id
                where s.hash = $1 and s.expires_at > $2";
    let found: Option<Found> =
        rows::one(connection, "session", text, vec![(*hash).into(), now.0.into()]).await?;
    Ok(found.map(|found| {
        let subject = found.subject.zip(found.issuer).map(|(id, issuer)| {
            let roles = found.roles.unwrap_or_default();
            let roles = roles.split_ascii_whitespace().map(str::to_owned).collect();
            SessionSubject { id, issuer, roles }
        });
        let session = Session {
            hash: found.hash,
            token: found.token_id,
            subject,
            token_hash: found.token_hash,
            created_at: Timestamp(found.created_at),
            expires_at: Timestamp(found.expires_at),
        };
        (session, found.public_id)
    }))
}

/// Deletes the row of a session.
pub(super) async fn end(transaction: &DatabaseTransaction, hash: &Sha256Hash) -> Result<(), StoreError> {
    let text = "delete from session where hash = $1";
    rows::execute(transaction, "session", text, vec![(*hash).into()]).await.map(drop)
}

/// Ends all sessions of a token.
pub(super) async fn end_all(
    transaction: &DatabaseTransaction,
    token: Option<&TokenId>,
) -> Result<u64, StoreError> {
    let (whose, token) = of_token(token);
    let text = format!("delete from session where {whose}");
    rows::execute(transaction, "session", &text, vec![token]).await
}

/// Ends all sessions of a person who signed in at an issuer.
pub(super) async fn end_all_of(transaction: &DatabaseTransaction, subject: &str) -> Result<u64, StoreError> {
    let text = "delete from session where subject = $1";
    rows::execute(transaction, "session", text, vec![subject.into()]).await
}

/// Ends the sessions that began at issuers other than these.
pub(super) async fn end_all_but(
    transaction: &DatabaseTransaction,
    origins: &[String],
) -> Result<u64, StoreError> {
    let kept: String = (1..=origins.len()).map(|place| format!(" and issuer <> ${place}")).collect();
    let text = format!("delete from session where subject is not null{kept}");
    let values = origins.iter().map(|origin| origin.as_str().into()).collect();
    rows::execute(transaction, "session", &text, values).await
}
