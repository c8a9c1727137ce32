//! Converts a message to the data of its template. Texts are made one line and cut here, so that the size of
//! a mail is limited whatever the entries hold: a digest of 1,000 entries names all of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidings_actors::{
    ports::{Digest, Gap, LedgerEntry, SubscriptionContent, SubscriptionMessage},
    time::Timestamp,
};
use tidings_entity::kind::EntryType;

use super::{compose::one_line, headline, templates::Template};
use crate::rendering::body::iso;

/// Most characters of where something happened.
const PLACE_CHARACTERS_MAX: usize = 120;
/// The most characters of an entry's text in a digest.
const WHAT_CHARACTERS_MAX: usize = 160;
/// The most characters of a fact in a mail about one entry.
const FACT_CHARACTERS_MAX: usize = 500;
/// The most characters of all entry texts in a digest; later entries are shown only with number, moment and
/// type.
const DIGEST_CHARACTERS_MAX: usize = 128 * 1024;
/// Most types that the subject of a digest counts.
const TYPES_SHOWN: usize = 3;

/// The template of a message, and its data.
pub(super) fn of(message: &SubscriptionMessage) -> (Template, Value) {
    let footer = footer(message);
    match &message.content {
        SubscriptionContent::Test => {
            let name = format!("the subscription {}", one_line(&message.name, PLACE_CHARACTERS_MAX));
            (Template::Welcome, json!({ "name": name, "footer": footer }))
        }
        SubscriptionContent::Entry(entry) => of_entry(entry, &footer),
        SubscriptionContent::Gap(gap) => of_digest(message, &[], Some(*gap), false, &footer),
        SubscriptionContent::Digest(Digest { entries, gap: None, is_full: false, .. })
            if entries.len() == 1 =>
        {
            of_entry(&entries[0], &footer)
        }
        SubscriptionContent::Digest(Digest { entries, gap, is_full, .. }) => {
            of_digest(message, entries, *gap, *is_full, &footer)
        }
    }
}

fn footer(message: &SubscriptionMessage) -> String {
    format!(
        "Tidings, app {}, subscription {} ({}). {}",
        message.app,
        one_line(&message.name, PLACE_CHARACTERS_MAX),
        message.subscription,
        message.id
    )
}

fn of_entry(entry: &LedgerEntry, footer: &str) -> (Template, Value) {
    let data = Data::of(entry);
    let template = match entry.entry_type {
        EntryType::RoundEnded => Template::WorkflowCompleted,
        EntryType::SourceFailing | EntryType::WatchBlocked => Template::WorkflowFailed,
        EntryType::LetterParked => Template::JobFailed,
        _ => Template::Entry,
    };
    let fact =
        |name: &str, value: String| json!({ "name": name, "value": one_line(&value, FACT_CHARACTERS_MAX) });
    let mut facts = vec![
        fact("entry", entry.id.number.to_string()),
        fact("type", entry.entry_type.to_string()),
        fact("at", moment(entry.at)),
        fact("subject", entry.subject.clone()),
    ];
    let others = data.0.keys().filter(|key| *key != "reason");
    facts.extend(others.filter_map(|key| Some(fact(key, data.text(key)?))));
    let mut filled = json!({
        "name": data.place(entry),
        "type": entry.entry_type.as_str(),
        "what": headline::of(entry.entry_type, &data.place(entry), &data),
        "facts": facts,
        "footer": footer,
    });
    if let Some(reason) = data.text("reason") {
        filled["reason"] = one_line(&reason, FACT_CHARACTERS_MAX).into();
    }
    (template, filled)
}

fn of_digest(
    message: &SubscriptionMessage,
    entries: &[LedgerEntry],
    gap: Option<Gap>,
    is_full: bool,
    footer: &str,
) -> (Template, Value) {
    let mut left = DIGEST_CHARACTERS_MAX;
    let mut counts = BTreeMap::<&str, usize>::new();
    let lines: Vec<Value> = entries
        .iter()
        .map(|entry| {
            *counts.entry(entry.entry_type.as_str()).or_default() += 1;
            let data = Data::of(entry);
            let (mut place, mut what) = (data.place(entry), data.what());
            if place.len() + what.len() > left {
                (place, what) = (String::new(), String::new());
            }
            left -= place.len() + what.len();
            json!({
                "number": entry.id.number,
                "at": moment(entry.at),
                "type": entry.entry_type.as_str(),
                "place": place,
                "what": what,
            })
        })
        .collect();
    let mut filled = json!({
        "name": one_line(&message.name, PLACE_CHARACTERS_MAX),
        "count": entries.len(),
        "summary": summary(&counts),
        "entries": lines,
        "is_full": is_full,
        "footer": footer,
    });
    if let Some(Gap { first, last }) = gap {
        filled["gap"] = json!({ "first": first, "last": last });
    }
    (Template::Digest, filled)
}

/// The number of entries of each type, the most frequent first.
fn summary(counts: &BTreeMap<&str, usize>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = sorted.iter().take(TYPES_SHOWN).map(|(name, count)| format!("{count} {name}"));
    let mut shown: Vec<String> = shown.collect();
    if sorted.len() > TYPES_SHOWN {
        shown.push("others".to_owned());
    }
    shown.join(", ")
}

/// A moment to the second, for people.
fn moment(at: Timestamp) -> String {
    iso(at).get(..19).unwrap_or_default().replace('T', " ") + " UTC"
}

/// The data of an entry beside its columns.
pub(super) struct Data(Map<String, Value>);

impl Data {
    fn of(entry: &LedgerEntry) -> Self {
        Self(serde_json::from_str(&entry.data).unwrap_or_default())
    }

    /// The value of a field as text; `None`: the entry lacks the field.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// The place of an entry for people: the repository and its branch, the address of a source, or else the
    /// id.
    fn place(&self, entry: &LedgerEntry) -> String {
        let words: Vec<String> = ["repository", "branch"].iter().filter_map(|key| self.text(key)).collect();
        let named = Some(words.join(" ")).filter(|words| !words.is_empty()).or_else(|| self.text("url"));
        let place = named.unwrap_or_else(|| entry.subject.clone());
        one_line(&place, PLACE_CHARACTERS_MAX)
    }

    /// The text of the entry, in one line.
    fn what(&self) -> String {
        let others = ["command", "reason", "error", "path", "count", "round", "kind"];
        let words = others.iter().filter_map(|key| Some(format!("{key}: {}", self.text(key)?)));
        one_line(&words.collect::<Vec<_>>().join(", "), WHAT_CHARACTERS_MAX)
    }
}

#[cfg(test)]
mod tests;
