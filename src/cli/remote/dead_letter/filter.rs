//! The arguments that select dead letters.

use clap::Args;
use tidings_entity::kind::{Operation, ParkReason};

use crate::cli::{Failure, client::Client, words};

/// A filter for dead letters: those that match all given options.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
pub(in crate::cli) struct FilterArgs {
    /// Only letters of this repository: its id, owner/name or address
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only letters of exactly this path
    #[arg(long, conflicts_with_all = ["path_prefix", "path_glob"])]
    path: Option<String>,
    /// Only letters of paths with this prefix
    #[arg(long, value_name = "PATH", conflicts_with = "path_glob")]
    path_prefix: Option<String>,
    /// Only letters of paths that match this glob
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Only letters of this operation: create, update or delete
    #[arg(long, value_parser = words::word::<Operation>(Operation::ALL.iter().map(|word| word.as_str())))]
    kind: Option<Operation>,
    /// Only letters parked for this reason: rejected, failing, content_unavailable or skipped
    #[arg(long, value_parser = words::word::<ParkReason>(ParkReason::ALL.iter().map(|word| word.as_str())))]
    reason: Option<ParkReason>,
    /// Only changes parked at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    from: Option<String>,
    /// Only changes parked before this moment (RFC 3339)
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = words::past)]
    to: Option<String>,
    /// Only letters that match this filter, such as 'state:open since:-2h'; docs/filters.md describes filters
    #[arg(long, short, value_name = "FILTER")]
    query: Option<String>,
}

impl FilterArgs {
    /// Whether no argument is given.
    pub(super) fn is_empty(&self) -> bool {
        self.repository.is_none() && self.other().is_empty()
    }

    /// The arguments under the names of the API; the server resolves the repository to a watch.
    ///
    /// # Errors
    /// If no watch, or several watches, are for the repository.
    pub(super) async fn said(&self, client: &Client) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut said = self.other();
        if let Some(named) = &self.repository {
            said.push(("repository_id", client.watch(named).await?.to_string()));
        }
        Ok(said)
    }

    /// All arguments except the repository.
    fn other(&self) -> Vec<(&'static str, String)> {
        let words = [
            ("path", self.path.clone()),
            ("path_prefix", self.path_prefix.clone()),
            ("path_glob", self.path_glob.clone()),
            ("kind", self.kind.map(|kind| kind.to_string())),
            ("reason", self.reason.map(|reason| reason.to_string())),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("q", self.query.clone()),
        ];
        words.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
    }
}
