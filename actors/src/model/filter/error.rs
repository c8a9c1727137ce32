//! The error for a text that is no filter: where, why, and what would work.

use thiserror::Error;
use winnow::{LocatingSlice, error::ParserError, stream::Location as _};

use super::BYTES_MAX;

/// A text with the place that is read.
pub(super) type Input<'t> = LocatingSlice<&'t str>;

/// A text that is no filter over its list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("column {column}: {reason}")]
pub struct InvalidFilter {
    /// The column of the fault, in characters; the first is 1.
    pub column: usize,
    /// The fault at this column and a text that works, for people.
    pub reason: String,
}

impl InvalidFilter {
    pub(super) fn too_long(text: &str) -> Self {
        let end = text.floor_char_boundary(BYTES_MAX);
        let reason = format!("the filter has {} bytes; it may have {BYTES_MAX}", text.len());
        Self { column: column(text, end), reason }
    }
}

/// The column of the byte at `offset`.
fn column(text: &str, offset: usize) -> usize {
    text[..offset].chars().count() + 1
}

/// A refusal of the parser, before it is shown.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The position of the error in the text, in bytes.
    at: usize,
    /// The reason; `None`: the parser may try an alternative at this position.
    reason: Option<String>,
}

impl Refusal {
    /// A refusal without an alternative at this position.
    pub(super) fn at(at: usize, reason: impl Into<String>) -> Self {
        Self { at, reason: Some(reason.into()) }
    }

    /// The error with the column that the place in the text has.
    pub(super) fn within(self, text: &str) -> InvalidFilter {
        let reason = self.reason.unwrap_or_else(|| "a term is missing here".to_owned());
        InvalidFilter { column: column(text, self.at), reason }
    }
}

impl ParserError<Input<'_>> for Refusal {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        Self { at: input.current_token_start(), reason: None }
    }

    fn is_backtrack(&self) -> bool {
        self.reason.is_none()
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}
