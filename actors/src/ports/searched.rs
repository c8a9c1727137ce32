//! The answer of a search that looks at a bounded number of rows.

/// Rows that a search found, and the place where the next search goes on. A search without matches costs no
/// more than a search in which every row matches: so it may find few rows, or none, although more match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched<Row, Place> {
    /// The rows that match, in the order of the list.
    pub found: Vec<Row>,
    /// The place behind which the next search goes on; `None`: no row is left.
    pub next: Option<Place>,
}
