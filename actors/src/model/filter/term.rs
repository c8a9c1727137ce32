//! One test of a filter, from a value and the kind of its field.

use std::time::Duration;

use tidings_entity::kind::{ContentRule, EntryType};

use super::sets::{Field, FieldKind, shown};
use crate::{
    model::view::{MAX_SIZE_DEFAULT, View, ViewFilter, literal_prefix},
    time::Timestamp,
};

/// The condition that one term of a filter sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A test of one field.
    Field {
        /// The field whose value is tested.
        field: &'static Field,
        /// The condition that the value must meet.
        test: Test,
    },
    /// One of the fields that the list searches contains this text.
    Text(String),
}

/// A test of one field. A row without a value for the field fails every test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The field is this word, name, id or text.
    Is(String),
    /// The field contains this text.
    Contains(String),
    /// The path, as a whole, matches this glob.
    Matches(Glob),
    /// The field is this number.
    Equals(i64),
    /// The moment is this one or later.
    From(Timestamp),
    /// The moment is before this one.
    Before(Timestamp),
}

/// A glob, by the rules of a [`View`].
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    paths: ViewFilter,
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

/// The paths that a glob may match, as far as its literal bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GlobReach {
    /// This path and no other.
    Path(Vec<u8>),
    /// All paths that begin so, and no other.
    Below(Vec<u8>),
    /// Some of the paths that begin so, and no other.
    Among(Vec<u8>),
}

impl Glob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// Why the glob can match no path, and a glob that would, for people.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.to_owned();
        View::check_length([&text]).map_err(|fault| fault.to_string())?;
        if let Some(rest) = text.strip_prefix('!') {
            return Err(format!("a glob does not begin with `!`; write `NOT path:{rest}`"));
        }
        View::check_spelling(&text).map_err(|fault| fault.to_string())?;
        let view = View::new(vec![text.clone()], Vec::new(), false, ContentRule::Inline, MAX_SIZE_DEFAULT);
        let paths = view.and_then(|view| view.filter()).map_err(|fault| fault.to_string())?;
        Ok(Self { text, paths })
    }

    /// The glob as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a path matches.
    #[must_use]
    pub fn admits(&self, path: &[u8]) -> bool {
        self.paths.admits(path, 0o100_644)
    }

    /// The paths that the glob may match, as far as their bytes tell.
    #[must_use]
    pub fn reach(&self) -> GlobReach {
        let prefix = literal_prefix(&self.text);
        let rest = &self.text[prefix.len()..];
        let is_directory = prefix.is_empty() || prefix.ends_with(b"/");
        match rest {
            "" if !is_directory => GlobReach::Path(prefix),
            "" | "**" if is_directory => GlobReach::Below(prefix),
            _ => GlobReach::Among(prefix),
        }
    }
}

/// The text after the name of a field.
pub(super) struct Given {
    pub(super) text: String,
    /// Whether a `~` stands before the text.
    pub(super) is_part: bool,
    pub(super) now: Timestamp,
}

/// The test that a value means for its field, or why the value is not valid for the field.
pub(super) fn test(field: &Field, given: &Given) -> Result<Test, String> {
    let text = given.text.as_str();
    let folded = || text.to_ascii_lowercase();
    let name = field.name;
    match (field.kind, given.is_part) {
        (FieldKind::Name | FieldKind::Text | FieldKind::EntryType | FieldKind::Path, true)
            if text.is_empty() =>
        {
            Err(format!("behind `{name}:~` stands a part of the text"))
        }
        (FieldKind::Name | FieldKind::Text | FieldKind::EntryType | FieldKind::Path, true) => {
            Ok(Test::Contains(folded()))
        }
        (FieldKind::Name, false) if text.is_empty() => {
            Err(format!("behind `{name}:` stands an id or a name"))
        }
        (FieldKind::Name | FieldKind::Text, false) => Ok(Test::Is(folded())),
        (FieldKind::Path, false) => Glob::new(text).map(Test::Matches),
        (FieldKind::Word(words), false) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            word.map(|word| Test::Is((*word).to_owned())).ok_or_else(|| of_words(field, words, text))
        }
        (FieldKind::EntryType, false) => {
            let known = EntryType::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
            known.map(|known| Test::Is(known.as_str().to_owned())).ok_or_else(|| {
                let words: Vec<_> = EntryType::ALL.iter().map(|known| known.as_str()).collect();
                format!("{}; a part of one stands behind `{name}:~`", of_words(field, &words, text))
            })
        }
        (FieldKind::Number, false) => {
            let number = text.parse().ok().filter(|number: &i64| *number >= 0);
            number
                .map(Test::Equals)
                .ok_or_else(|| format!("{name} takes a whole number, not {}", shown(text)))
        }
        (FieldKind::Since, false) => moment(given).map(Test::From).ok_or_else(|| of_moments(field, text)),
        (FieldKind::Until, false) => moment(given).map(Test::Before).ok_or_else(|| of_moments(field, text)),
        (FieldKind::Word(words), true) => Err(of_words(field, words, &format!("~{text}"))),
        (FieldKind::Number, true) => Err(format!("{name} takes a whole number, not a part of one")),
        (FieldKind::Since | FieldKind::Until, true) => Err(of_moments(field, &format!("~{text}"))),
    }
}

fn of_words(field: &Field, words: &[&str], text: &str) -> String {
    format!("{} takes one of: {}; not {}", field.name, words.join(", "), shown(text))
}

fn of_moments(field: &Field, text: &str) -> String {
    format!(
        "{} takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, \
         -2h, -7d or -2w; not {}",
        field.name,
        shown(text)
    )
}

/// Parses a moment, or a time before now. Moments before 1970 are refused.
fn moment(given: &Given) -> Option<Timestamp> {
    let Some(span) = given.text.strip_prefix('-') else { return Timestamp::parsed(&given.text) };
    let unit = span.chars().next_back()?;
    let count = &span[..span.len() - unit.len_utf8()];
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let is_count = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = is_count.then(|| count.parse().ok()).flatten()?;
    let span = Duration::from_secs(count.checked_mul(seconds)?);
    let span = i64::try_from(span.as_millis()).ok()?;
    Some(Timestamp(given.now.0.saturating_sub(span).max(0)))
}
