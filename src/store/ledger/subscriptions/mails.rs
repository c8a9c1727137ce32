//! The columns of a subscription about mails, and the entries `mail.sent` and `mail.failed`, which are the
//! log of mails. These entries are listed, but sent to no subscription.

use std::collections::BTreeMap;

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
use crate::{Context, database::rows, ledger::told};

/// A mail as the log names it.
pub(super) struct Mail<'a> {
    /// The id of the mail, from which its `Message-ID` is derived.
    pub(super) id: &'a str,
    /// The range of its entries; `None`: a person asked for the mail.
    pub(super) range: Option<MailRange>,
    /// The number of its entries.
    pub(super) entries: u64,
    /// The addresses that the mail is meant for, whether or not the mail server takes it for them.
    pub(super) to: &'a [String],
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

/// Writes to the ledger which recipients the mail went to; and which it did not go to, in one entry
/// for each reason.
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
    for (reason, to) in left_out(mail.to, taken_by, refused, &outcome.excerpt) {
        let note = about(EntryType::MailFailed).with("to", json!(to)).with("reason", reason);
        told::now(connection, context, note).await?;
    }
    Ok(())
}

/// The recipients without the mail, by reason: the refusal of the recipient, or else what the server said of
/// the mail.
fn left_out<'a>(
    all: &'a [String],
    taken_by: &[String],
    refused: &'a [RefusedRecipient],
    said: &'a str,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for refused in refused {
        reasons.entry(&refused.reason).or_default().push(&refused.to);
    }
    let is_known = |to: &String| taken_by.contains(to) || refused.iter().any(|refused| refused.to == *to);
    for to in all.iter().filter(|to| taken_by.is_empty() && !is_known(to)) {
        reasons.entry(said).or_default().push(to);
    }
    reasons
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
    let taken_by = if attempt.outcome.is_success() { all.clone() } else { Vec::new() };
    let mail = Mail { id: &attempt.message, range: None, entries: 1, to: &all };
    tell(connection, context, &of_row, &mail, &taken_by, &[], &attempt.outcome).await
}
