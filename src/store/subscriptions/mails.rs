//! The columns of a subscription about mails, and the entries `mail.sent` and `mail.failed`, which are the
//! log of mails. These entries are listed, but sent to no subscription.

use sea_orm::ConnectionTrait;
use serde_json::json;
use tidings_actors::{
    ports::{AttemptOutcome, MailRange, RefusedRecipient, StoreError, SubscriptionAttempt},
    time::Timestamp,
};
use tidings_entity::{
    id::SubscriptionId,
    kind::{EntryType, SinkKind},
    sink, subscription,
};

use super::{attempts, row, work};
use crate::{Context, ledger::told, rows};

/// A mail as the log names it.
pub(super) struct Mail<'a> {
    /// The id of the mail, from which its `Message-ID` is derived.
    pub(super) id: &'a str,
    /// The range of its entries; `None`: a person asked for the mail.
    pub(super) range: Option<MailRange>,
    /// The number of its entries.
    pub(super) entries: u64,
}

/// Writes the range of the next mail.
pub(super) async fn freeze(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
    range: MailRange,
) -> Result<(), StoreError> {
    let text = "update subscription set mail_first = $2, mail_last = $3 where id = $1";
    let values = vec![id.clone().into(), range.first.into(), range.last.into()];
    rows::execute(connection, "subscription", text, values).await.map(drop)
}

/// The mail server does not have that mail: the range of the next mail is chosen again.
pub(super) async fn thaw(connection: &impl ConnectionTrait, id: &SubscriptionId) -> Result<(), StoreError> {
    let text = "update subscription set mail_first = null, mail_last = null where id = $1";
    rows::execute(connection, "subscription", text, vec![id.clone().into()]).await.map(drop)
}

/// Sets the moment before which no other mail is sent.
pub(super) async fn keep_quiet(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
    until: Timestamp,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update subscription set quiet_until = $2, waits_since = $3 where id = $1";
    let values = vec![id.clone().into(), until.0.into(), at.0.into()];
    rows::execute(connection, "subscription", text, values).await.map(drop)
}

/// Writes to the ledger which recipients the mail went to, and which it did not.
pub(super) async fn tell(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &subscription::Model,
    mail: &Mail<'_>,
    taken_by: &[String],
    refused: &[RefusedRecipient],
    outcome: &AttemptOutcome,
) -> Result<(), StoreError> {
    let about = |entry_type| {
        let note = work::about(row, entry_type).with("mail", mail.id).with("entries", mail.entries);
        match mail.range {
            Some(MailRange { first, last }) => note.with("first", first).with("last", last),
            None => note,
        }
    };
    if !taken_by.is_empty() {
        told::now(connection, context, about(EntryType::MailSent).with("to", json!(taken_by))).await?;
    }
    if taken_by.is_empty() || !refused.is_empty() {
        let to: Vec<&str> = refused.iter().map(|refused| refused.to.as_str()).collect();
        let reason = refused.first().map_or(outcome.excerpt.as_str(), |refused| refused.reason.as_str());
        let note = about(EntryType::MailFailed).with("to", json!(to)).with("reason", reason);
        told::now(connection, context, note).await?;
    }
    Ok(())
}

/// Stores an attempt that a person asked for. A mail is also recorded in the ledger, like every mail.
pub(crate) async fn record_by_hand(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &SubscriptionId,
    attempt: &SubscriptionAttempt,
) -> Result<(), StoreError> {
    attempts::record(connection, id, attempt).await?;
    let Some(of_row) = row(connection, id).await? else { return Ok(()) };
    let text = "select * from sink where id = $1";
    let sink: Option<sink::Model> =
        rows::one(connection, "sink", text, vec![of_row.sink_id.clone().into()]).await?;
    let Some(sink) = sink.filter(|sink| sink.kind == SinkKind::Mail) else { return Ok(()) };
    let address = crate::apps::sinks::address(sink.kind, sink.address)?;
    let all: Vec<String> = address.recipients().into_iter().map(str::to_owned).collect();
    let taken_by = if attempt.outcome.is_success() { all } else { Vec::new() };
    let mail = Mail { id: &attempt.message, range: None, entries: 1 };
    tell(connection, context, &of_row, &mail, &taken_by, &[], &attempt.outcome).await
}
