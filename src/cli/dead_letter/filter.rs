//! Which dead letters are meant, on the command line.

use clap::Args;
use tidings_entity::kind::{Operation, ParkReason};

use super::super::{Failure, client::Client, words};

/// Letters that meet everything that is said.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
pub(in crate::cli) struct FilterArgs {
    /// Only those of this repository: its id, owner/name or address
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Only those of this path
    #[arg(long, conflicts_with_all = ["path_prefix", "path_glob"])]
    path: Option<String>,
    /// Only those of paths that begin so
    #[arg(long, value_name = "PATH", conflicts_with = "path_glob")]
    path_prefix: Option<String>,
    /// Only those of paths that match
    #[arg(long, value_name = "GLOB")]
    path_glob: Option<String>,
    /// Only create, update or delete
    #[arg(long, value_parser = words::word::<Operation>(Operation::ALL.iter().map(|word| word.as_str())))]
    kind: Option<Operation>,
    /// Only those given up because: rejected, failing, content_unavailable or skipped
    #[arg(long, value_parser = words::word::<ParkReason>(ParkReason::ALL.iter().map(|word| word.as_str())))]
    reason: Option<ParkReason>,
    /// Only those given up at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// Only those given up before this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
    /// Only those that this filter means, such as 'state:open since:-2h'; docs/filters.md tells what a filter
    /// may say
    #[arg(long, short, value_name = "FILTER")]
    query: Option<String>,
}

impl FilterArgs {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.repository.is_none() && self.other().is_empty()
    }

    /// What is said, under the names of the API; a server knows which watch a repository is.
    ///
    /// # Errors
    /// No such repository is watched, or several watches are of it.
    pub(super) async fn said(&self, client: &Client) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut said = self.other();
        if let Some(named) = &self.repository {
            said.push(("repository_id", client.watch(named).await?.to_string()));
        }
        Ok(said)
    }

    /// All but the repository.
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
