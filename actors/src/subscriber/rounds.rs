//! The subscriptions that read entries about rounds. Such entries are written only if a subscription reads
//! them, so that deliveries write nothing otherwise. Pure.

use tidings_entity::kind::{EntryType, OriginKind};

use crate::model::filter::{Filter, Record, Value};

/// An entry about a round, of which nothing else is known yet.
struct OfRound(EntryType);

impl Record for OfRound {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "type" => Value::text(self.0.as_str()),
            "origin" => Value::text(OriginKind::Commit.as_str()),
            _ => Value::Unknown,
        }
    }
}

/// Whether a filter over the ledger may mean an entry about a round.
#[must_use]
pub fn reads_rounds(filter: &Filter) -> bool {
    [EntryType::RoundBegan, EntryType::RoundEnded]
        .into_iter()
        .any(|entry_type| filter.decide(&OfRound(entry_type)) != Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::filter::sets::LEDGER, time::Timestamp};

    #[test]
    fn only_a_filter_that_may_mean_a_round_has_rounds_written() {
        for (text, reads) in [
            ("", true),
            ("type:round.began", true),
            ("type:round.ended repository:docs", true),
            ("type:~round", true),
            ("data:~docs", true),
            ("origin:commit", true),
            ("origin:outside", false),
            ("type:sink.closed", false),
            ("type:source.failing OR type:watch.blocked", false),
            ("NOT type:~round", false),
            ("NOT type:~round OR repository:docs", true),
            ("type:letter.parked repository:docs", false),
        ] {
            let filter = Filter::parse(text, &LEDGER, Timestamp(0)).expect(text);
            assert_eq!(reads_rounds(&filter), reads, "{text}");
        }
    }
}
