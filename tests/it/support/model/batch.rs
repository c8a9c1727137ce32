//! Many changes in one request: each is checked as if it had come alone, and all together make a
//! batch as it was agreed.

use serde_json::{Value, json};

use super::{Arrival, Change, Model, read_change};
use crate::support::alphabet::{Ending, Word};

impl Model {
    /// Takes a batch in.
    pub(super) fn take_batch(&mut self, body: &Value, webhook_id: &str, bytes: &[u8]) -> Option<Arrival> {
        self.batches.0 += 1;
        let (mut changes, mut texts) = (Vec::new(), Vec::new());
        for (change, text) in split(bytes) {
            let action = match change["event"]["type"].as_str() {
                Some("file.created") => "create",
                Some("file.updated") => "update",
                Some("file.deleted") => "delete",
                _ => "unknown",
            };
            match read_change(action, change) {
                Ok(change) if action != "unknown" => {
                    changes.push(change);
                    texts.push(text);
                }
                _ => self.faults.push(format!("the batch {webhook_id} holds what is no change")),
            }
        }
        if body["changes"].as_array().map(Vec::len) != Some(changes.len()) {
            self.faults.push(format!("the batch {webhook_id} holds more than its changes"));
        }
        if body["batch"]["id"] != webhook_id {
            self.faults.push(format!("the batch {webhook_id} has another id inside"));
        }
        self.check_batch(webhook_id, &changes);
        for (change, text) in changes.iter().zip(texts) {
            self.check_content(change);
            self.check_identity(change, &change.id, text);
        }
        Some(Arrival::Batch(changes))
    }

    /// An id names one list of changes for ever; they are of one lane, in their order, and few enough.
    fn check_batch(&mut self, id: &str, changes: &[Change]) {
        let most = self.batch_max.unwrap_or(0);
        if !(2..=most).contains(&changes.len()) {
            self.faults.push(format!("the batch {id} has {} changes of at most {most}", changes.len()));
        }
        let follows = |pair: &[Change]| {
            (&pair[0].cursor, pair[0].round) == (&pair[1].cursor, pair[1].round)
                && pair[0].position < pair[1].position
                && (!self.phased || pair[0].action == pair[1].action)
        };
        if !changes.windows(2).all(follows) {
            self.faults.push(format!("the changes of the batch {id} do not follow each other"));
        }
        if changes.iter().any(|change| change.chunk.is_some()) {
            self.faults.push(format!("the batch {id} holds a piece of a file"));
        }
        let ids: Vec<String> = changes.iter().map(|change| change.id.clone()).collect();
        if *self.batch_ids.entry(id.to_owned()).or_insert_with(|| ids.clone()) != ids {
            self.faults.push(format!("the id {id} stands for two batches"));
        }
    }

    /// The app takes some of a batch and says so; the answer.
    pub(crate) fn take_some(&mut self, changes: &[Change], taken: &[bool]) -> Value {
        self.batches.1 += 1;
        let mut results = Vec::new();
        for (change, taken) in changes.iter().zip(taken) {
            if *taken {
                self.apply_change(change);
                self.acknowledged_change(change);
                results.push(json!({ "id": change.id, "outcome": "accepted" }));
            } else if change.position % 2 == 0 {
                results.push(json!({ "id": change.id, "outcome": "retry", "reason": "not now" }));
            }
            // What is not named is to come again as well.
        }
        json!({ "results": results })
    }
}

impl Model {
    /// The app does with each change of a batch what a word says; the answer.
    pub(crate) fn take_by_word(&mut self, changes: &[Change], words: &[Word]) -> Value {
        self.batches.1 += 1;
        let mut results = Vec::new();
        for (change, word) in changes.iter().zip(words) {
            let (is_applied, outcome) = match word {
                Word::Accept | Word::Apply(Ending::Silence | Ending::Reset | Ending::Late(_)) => {
                    (true, "accepted")
                }
                Word::Refuse(500..) => (false, "retry"),
                Word::Refuse(_) => (false, "refused"),
                Word::Apply(Ending::Status(500..)) => (true, "retry"),
                Word::Apply(Ending::Status(_)) => (true, "refused"),
            };
            if is_applied {
                self.apply_change(change);
            }
            if outcome == "accepted" {
                self.acknowledged_change(change);
            } else {
                self.turned_down_change(change);
            }
            results.push(json!({ "id": change.id, "outcome": outcome, "reason": format!("{word:?}") }));
        }
        json!({ "results": results })
    }
}

/// The changes of a batch, each with its bytes as they stand there.
fn split(bytes: &[u8]) -> Vec<(Value, &[u8])> {
    let key = br#""changes":["#;
    let at = bytes.windows(key.len()).position(|window| window == key);
    let mut rest = at.map_or(&[][..], |at| &bytes[at + key.len()..]);
    let mut found = Vec::new();
    loop {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else { return found };
        let (text, after) = rest.split_at(values.byte_offset());
        found.push((value, text));
        rest = after.strip_prefix(b",").unwrap_or_default();
    }
}
