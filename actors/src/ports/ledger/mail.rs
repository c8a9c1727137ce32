//! Mails of subscriptions: the entries that one mail reports, and the result of sending it.

use tidings_entity::id::{LedgerId, Sha256Hash, SubscriptionId};

use crate::{
    model::round::DeliveryId,
    ports::{AttemptOutcome, Gap, LedgerEntry},
};

/// The most entries of one mail. Further entries wait for the next mail.
pub const MAIL_ENTRIES_MAX: u64 = 1_000;

/// The entries that one mail reports, by the numbers of the first and the last of them. The range is written
/// to the row of the subscription before the mail is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailRange {
    /// The number of the first entry.
    pub first: i64,
    /// The number of the last entry.
    pub last: i64,
}

impl Digest {
    /// The id of the mail: the same for every attempt to send it, and another id for other entries. A changed
    /// filter may select other entries of the same range, and mail programs hide a mail whose id they know.
    #[must_use]
    pub fn id(&self, subscription: &SubscriptionId, ledger: &LedgerId) -> DeliveryId {
        let MailRange { first, last } = self.range;
        let numbers: Vec<String> = self.entries.iter().map(|entry| entry.id.number.to_string()).collect();
        let entries = Sha256Hash::of(numbers.join(" ").as_bytes()).to_string();
        let (subscription, ledger) = (subscription.ulid(), ledger.ulid());
        DeliveryId::from_stored(format!("mail_{subscription}_{ledger}_{first}_{last}_{}", &entries[..12]))
    }
}

/// The content of a mail.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// The first and the last number of the entries that the mail covers.
    pub range: MailRange,
    /// The entries of the range that match the subscription's filter, oldest first.
    pub entries: Vec<LedgerEntry>,
    /// Entries before them that were pruned before they were sent.
    pub gap: Option<Gap>,
    /// Whether the mail has as many entries as allowed: more entries may wait behind them.
    pub is_full: bool,
}

/// A recipient that was sent nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecipient {
    /// The mail address that was refused.
    pub to: String,
    /// Why, in a few words.
    pub reason: String,
}

/// The result of one attempt to send a mail.
#[derive(Clone, Debug, PartialEq)]
pub struct MailOutcome {
    /// The attempt in the form of all sinks: 250 accepted, 422 refused for good, 503 not accepted now.
    pub attempt: AttemptOutcome,
    /// Recipients that are left out: by `mail.allow`, or refused by the mail server.
    pub refused: Vec<RefusedRecipient>,
    /// Whether the mail was handed over without an answer: the server may have it.
    pub is_in_doubt: bool,
}
