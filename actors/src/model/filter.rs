//! Filters: the text `q` that selects the rows of a list, of a bulk verb or of a subscription.
//!
//! `state:failed app:docs since:-2h path:docs/** name:~read "phrase" NOT (a OR b)`: terms side by side must
//! all hold, `OR` binds weaker than that, `NOT` stronger. docs/filters.md describes the language for people.
//! Each list declares its fields as data ([`sets`]); an unknown field is an error with its position.
//!
//! A filter is evaluated here, in memory, over any [`Record`]; this evaluation defines the meaning of the
//! text. The store translates the same tree to a condition of SQL, so that few rows are read. A filter does
//! not decide who may see a row: the condition of the owner is added outside of it.
//!
//! Bounds: [`BYTES_MAX`], [`TERMS_MAX`], [`DEPTH_MAX`]. Reading takes time in proportion to the text and
//! never panics.

mod bounds;
mod error;
mod evaluate;
mod parse;
mod print;
pub mod sets;
mod term;

pub use self::{
    error::InvalidFilter,
    evaluate::{Record, Value},
    sets::{Field, FieldKind, FieldSet},
    term::{Glob, GlobReach, Term, Test},
};
use crate::time::Timestamp;

/// Longest text of a filter, in bytes.
pub const BYTES_MAX: usize = 1_024;
/// Most terms of a filter.
pub const TERMS_MAX: usize = 32;
/// Most parentheses and `NOT` around one term.
pub const DEPTH_MAX: usize = 16;

/// A filter over the rows of one list.
#[derive(Clone, Debug)]
pub struct Filter {
    set: &'static FieldSet,
    expression: Expression,
}

/// The expression of a filter, as a tree. All texts in it are lower-case in ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Each of them holds: nothing, or two or more.
    All(Vec<Expression>),
    /// One of them holds: two or more.
    Any(Vec<Expression>),
    /// The expression does not hold.
    Not(Box<Expression>),
    /// One condition on a field, or one text to search for.
    Term(Term),
}

impl Filter {
    /// Reads a filter over the rows of a list; times before now are counted from `now`. A text without terms
    /// means every row.
    ///
    /// # Errors
    /// [`InvalidFilter`] with the place of the first fault.
    pub fn parse(text: &str, set: &'static FieldSet, now: Timestamp) -> Result<Self, InvalidFilter> {
        if text.len() > BYTES_MAX {
            return Err(InvalidFilter::too_long(text));
        }
        Self::read(text, set, now)
    }

    /// Parses the output of [`Display`](std::fmt::Display) of a filter. Moments are written in full there, so
    /// the text may be longer than the text of a caller.
    ///
    /// # Errors
    /// [`InvalidFilter`], when the list no longer has a field or a word.
    pub fn reread(text: &str, set: &'static FieldSet) -> Result<Self, InvalidFilter> {
        Self::read(text, set, Timestamp(0))
    }

    fn read(text: &str, set: &'static FieldSet, now: Timestamp) -> Result<Self, InvalidFilter> {
        let expression = parse::expression(text, set, now).map_err(|refusal| refusal.within(text))?;
        Ok(Self { set, expression })
    }

    /// The conditions as a tree.
    #[must_use]
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// The fields of its list.
    #[must_use]
    pub fn set(&self) -> &'static FieldSet {
        self.set
    }

    /// Whether it has no term, so that it means every row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expression == Expression::All(Vec::new())
    }

    /// The number of terms: the cost of evaluating one row.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.expression.terms()
    }

    /// Whether a term of it tests this field.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.expression.names(field)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.set.list == other.set.list && self.expression == other.expression
    }
}

impl Eq for Filter {}

impl Expression {
    fn terms(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::terms).sum(),
            Self::Not(inner) => inner.terms(),
            Self::Term(_) => 1,
        }
    }

    fn names(&self, name: &str) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.names(name)),
            Self::Not(inner) => inner.names(name),
            Self::Term(Term::Field { field, .. }) => field.name == name,
            Self::Term(Term::Text(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests;
