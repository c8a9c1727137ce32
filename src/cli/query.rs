//! The filter of lists, the same for every verb that lists.

use clap::Args;

/// Which rows are listed.
#[derive(Args, Debug)]
pub(super) struct QueryArgs {
    /// Only those that this filter means, such as 'state:open since:-2h'; docs/filters.md tells what a filter
    /// may say
    #[arg(long, short, value_name = "FILTER")]
    pub(super) query: Option<String>,
}

impl QueryArgs {
    /// What is said, under the name of the API.
    pub(super) fn said(&self) -> Option<(&'static str, &str)> {
        self.query.as_deref().map(|text| ("q", text))
    }
}
