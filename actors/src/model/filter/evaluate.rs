//! A filter over one row in memory. This is what a filter means; the store only reads fewer rows.
//!
//! A row need not be known completely: if the known fields decide, the others are not read.

use std::borrow::Cow;

use memchr::memmem;

use super::{Expression, Filter, Term, Test};

/// A row that filters are evaluated over.
pub trait Record {
    /// The value of a field. The fields `since` and `until` have the same moment.
    fn value(&self, field: &str) -> Value<'_>;
}

/// The value of a field in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'r> {
    /// The value of the field is not known yet.
    Unknown,
    /// No value: every test of it fails.
    Nothing,
    /// Words, names, ids or texts; one of them must meet a test.
    Texts(Vec<Cow<'r, str>>),
    /// The raw bytes of a path.
    Path(&'r [u8]),
    /// A whole number, such as a status code.
    Number(i64),
    /// The moment that `since` and `until` are compared with.
    Moment(crate::time::Timestamp),
}

impl<'r> Value<'r> {
    /// A value of a single text.
    #[must_use]
    pub fn text(text: &'r str) -> Self {
        Self::Texts(vec![Cow::Borrowed(text)])
    }

    /// One text, or nothing.
    #[must_use]
    pub fn optional(text: Option<&'r str>) -> Self {
        text.map_or(Self::Nothing, Self::text)
    }

    /// One number, or nothing.
    #[must_use]
    pub fn number(number: Option<impl Into<i64>>) -> Self {
        number.map_or(Self::Nothing, |number| Self::Number(number.into()))
    }

    /// One moment, or nothing.
    #[must_use]
    pub fn moment(at: Option<crate::time::Timestamp>) -> Self {
        at.map_or(Self::Nothing, Self::Moment)
    }

    fn meets(&self, test: &Test) -> Option<bool> {
        Some(match (self, test) {
            (Self::Unknown, _) => return None,
            (Self::Texts(texts), Test::Is(text)) => texts.iter().any(|one| one.eq_ignore_ascii_case(text)),
            (_, Test::Contains(part)) => return self.contains(part),
            (Self::Path(path), Test::Matches(glob)) => glob.admits(path),
            (Self::Number(number), Test::Equals(other)) => number == other,
            (Self::Moment(at), Test::From(from)) => at >= from,
            (Self::Moment(at), Test::Before(to)) => at < to,
            _ => false,
        })
    }

    /// Whether the value contains `part`, which is in lower case. Takes time in proportion to both lengths.
    fn contains(&self, part: &str) -> Option<bool> {
        let found = |bytes: &[u8]| memmem::find(&bytes.to_ascii_lowercase(), part.as_bytes()).is_some();
        match self {
            Self::Unknown => None,
            Self::Texts(texts) => Some(texts.iter().any(|one| found(one.as_bytes()))),
            Self::Path(path) => Some(found(path)),
            Self::Nothing | Self::Number(_) | Self::Moment(_) => Some(false),
        }
    }
}

impl Filter {
    /// Whether a row matches. For a row that is not known completely, the known fields must decide that it
    /// matches.
    #[must_use]
    pub fn admits(&self, record: &impl Record) -> bool {
        self.decide(record) == Some(true)
    }

    /// Whether a row matches; `None`: it depends on fields that are not known.
    #[must_use]
    pub fn decide(&self, record: &impl Record) -> Option<bool> {
        self.expression.decide(record, self.set.searched)
    }
}

impl Expression {
    fn decide(&self, record: &impl Record, searched: &[&str]) -> Option<bool> {
        match self {
            Self::All(parts) => first(false, parts.iter().map(|part| part.decide(record, searched))),
            Self::Any(parts) => first(true, parts.iter().map(|part| part.decide(record, searched))),
            Self::Not(inner) => inner.decide(record, searched).map(|holds| !holds),
            Self::Term(Term::Field { field, test }) => record.value(field.name).meets(test),
            Self::Term(Term::Text(text)) => {
                first(true, searched.iter().map(|field| record.value(field).contains(text)))
            }
        }
    }
}

/// `verdict`, if one of the parts gives it; otherwise its opposite, if all parts are known.
fn first(verdict: bool, parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut is_known = true;
    for part in parts {
        match part {
            Some(found) if found == verdict => return Some(verdict),
            found => is_known &= found.is_some(),
        }
    }
    is_known.then_some(!verdict)
}
