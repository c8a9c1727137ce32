//! The filter of lists, the same for every verb that lists.

use clap::Args;

/// Selects the rows to list.
#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// Only rows that match this filter, such as 'state:open since:-2h'; docs/filters.md describes filters
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) query: Option<String>,
}

impl QueryArgs {
    /// The argument under its name in the API.
    pub(crate) fn said(&self) -> Option<(&'static str, &str)> {
        self.query.as_deref().map(|text| ("q", text))
    }
}
