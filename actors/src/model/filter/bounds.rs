//! The moments between which all rows of a filter lie: rows outside need not be read.

use super::{Expression, Filter, Term, Test};
use crate::time::Timestamp;

/// The first moment, and the one after the last; `None`: there is no such bound.
type Bounds = (Option<Timestamp>, Option<Timestamp>);

impl Filter {
    /// Moments between which every matching row lies: not before the first, and before the second.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.expression.bounds()
    }
}

impl Expression {
    fn bounds(&self) -> Bounds {
        match self {
            Self::Term(Term::Field { test: Test::From(at), .. }) => (Some(*at), None),
            Self::Term(Term::Field { test: Test::Before(at), .. }) => (None, Some(*at)),
            // The negation of a bound is a bound as well, but too rare to be worth code.
            Self::Term(_) | Self::Not(_) => (None, None),
            Self::All(parts) => parts.iter().map(Self::bounds).fold((None, None), |one, other| {
                let earlier = [one.1, other.1].into_iter().flatten().min();
                (one.0.max(other.0), earlier)
            }),
            Self::Any(parts) => {
                let all: Vec<Bounds> = parts.iter().map(Self::bounds).collect();
                let first = all.iter().map(|(first, _)| *first).min().flatten();
                let end = all.iter().map(|(_, end)| *end).collect::<Option<Vec<_>>>();
                (first, end.and_then(|ends| ends.into_iter().max()))
            }
        }
    }
}
