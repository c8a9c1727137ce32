//! All that a receiver can do with a change: take it or not, and answer whatever it likes. A program
//! says what is done, for each pattern of paths and each try of a change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::model::{Arrival, Change};

/// What a receiver does with one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Applies it and says 200.
    Accept,
    /// Does not apply it and says this.
    Refuse(u16),
    /// Applies it, and then this follows.
    Apply(Ending),
}

/// What follows a change that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An answer with this status.
    Status(u16),
    /// Silence, until the other side gives up.
    Silence,
    /// A reset of the connection.
    Reset,
    /// A 200 after this long, which may be later than anybody waits.
    Late(Duration),
}

/// What a receiver does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// With everything in it this.
    All(Word),
    /// With each change of a batch something else.
    Each(Vec<Word>),
}

/// What is done, by pattern and try. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Program(Arc<Mutex<Rules>>);

#[derive(Default)]
struct Rules {
    /// In order; the first whose pattern matches counts.
    rules: Vec<Rule>,
    /// How often a change was tried, by its id.
    tries: HashMap<String, usize>,
    batches: u64,
}

struct Rule {
    pattern: String,
    first: Vec<Word>,
    then: Word,
}

impl Program {
    /// From now on the first tries of each change of these paths (`name`, or `begin*`) meet `first`, one
    /// each, and further ones meet `then`.
    pub(crate) fn answer(&self, pattern: &str, first: &[Word], then: Word) {
        let mut rules = self.rules();
        rules.rules.retain(|rule| rule.pattern != pattern);
        rules.rules.insert(0, Rule { pattern: pattern.to_owned(), first: first.to_vec(), then });
        // A change that was tried before begins again.
        rules.tries.clear();
    }

    /// From now on everything is accepted.
    pub(crate) fn accept_all(&self) {
        self.rules().rules.clear();
    }

    /// What is done with this request.
    pub(crate) fn next(&self, arrival: &Arrival) -> Doing {
        let mut rules = self.rules();
        match arrival {
            Arrival::Notice => Doing::All(Word::Accept),
            Arrival::Change(change) => Doing::All(rules.word(change)),
            Arrival::Batch(changes) => {
                rules.batches += 1;
                let whole = rules.batches.is_multiple_of(2);
                let words: Vec<Word> = changes.iter().map(|change| rules.word(change)).collect();
                batch(&words, whole)
            }
        }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    fn word(&mut self, change: &Change) -> Word {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(&change.path)) else {
            return Word::Accept;
        };
        let tries = self.tries.entry(change.id.clone()).or_default();
        *tries += 1;
        rule.first.get(*tries - 1).copied().unwrap_or(rule.then)
    }
}

impl Rule {
    fn matches(&self, path: &[u8]) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning.as_bytes()),
            None => path == self.pattern.as_bytes(),
        }
    }
}

/// What is done with a batch whose changes meet these words, as a `whole` or change by change.
fn batch(words: &[Word], whole: bool) -> Doing {
    let is_broken =
        |word: &&Word| matches!(word, Word::Apply(ending) if !matches!(ending, Ending::Status(_)));
    let bad = words.iter().find(|word| **word != Word::Accept);
    match (words.iter().find(is_broken), bad) {
        // An answer that does not come does not come for any of them.
        (Some(broken), _) => Doing::All(*broken),
        (None, Some(bad)) if whole => Doing::All(*bad),
        (None, Some(_)) => Doing::Each(words.to_vec()),
        (None, None) => Doing::All(Word::Accept),
    }
}
