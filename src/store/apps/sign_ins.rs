//! Sign-ins that are under way at an issuer: each is stored until the browser comes back, once.

use sea_orm::DatabaseTransaction;
use tidings_actors::{
    ports::{SIGN_INS_MAX, SignIn, StoreError},
    time::Timestamp,
};
use tidings_entity::{id::Sha256Hash, sign_in};

use crate::database::rows;

/// Stores a sign-in, and removes those that have ended.
pub(super) async fn begin(
    transaction: &DatabaseTransaction,
    sign_in: &SignIn,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = "delete from sign_in where expires_at <= $1";
    rows::execute(transaction, "sign_in", text, vec![now.0.into()]).await?;
    let waiting = rows::number(transaction, "sign_in", "select count(*) from sign_in", Vec::new()).await?;
    if waiting >= rows::signed(SIGN_INS_MAX) {
        return Err(StoreError::Conflict(format!("{SIGN_INS_MAX} sign-ins are under way: try again later")));
    }
    let row = sign_in::Model {
        state: sign_in.state,
        issuer: sign_in.issuer.clone(),
        expires_at: sign_in.expires_at.0,
    };
    rows::insert(transaction, "sign_in", vec![row]).await
}

/// Removes a sign-in. Returns whether it existed and had not ended; a second call returns `false`.
pub(super) async fn take(
    transaction: &DatabaseTransaction,
    state: &Sha256Hash,
    issuer: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let text = "delete from sign_in where state = $1 and issuer = $2 and expires_at > $3";
    let values = vec![(*state).into(), issuer.into(), now.0.into()];
    Ok(rows::execute(transaction, "sign_in", text, values).await? > 0)
}
