//! Which dead letters are meant, on the command line.

use clap::Args;
use tidings_entity::{
    id::WatchId,
    kind::{Operation, ParkReason},
};

/// Letters that meet everything that is said.
#[derive(Args, Debug)]
#[group(id = "filter", multiple = true)]
pub(in crate::cli) struct FilterArgs {
    /// Only those of this repository
    #[arg(long, value_name = "ID")]
    repository: Option<WatchId>,
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
    #[arg(long)]
    kind: Option<Operation>,
    /// Only those given up because: rejected, failing, content_unavailable or skipped
    #[arg(long)]
    reason: Option<ParkReason>,
    /// Only those given up at this moment (RFC 3339) or later
    #[arg(long, value_name = "MOMENT")]
    from: Option<String>,
    /// Only those given up before this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<String>,
}

impl FilterArgs {
    /// What is said, under the names of the API.
    pub(super) fn said(&self) -> Vec<(&'static str, String)> {
        let words = [
            ("repository_id", self.repository.as_ref().map(ToString::to_string)),
            ("path", self.path.clone()),
            ("path_prefix", self.path_prefix.clone()),
            ("path_glob", self.path_glob.clone()),
            ("kind", self.kind.map(|kind| kind.to_string())),
            ("reason", self.reason.map(|reason| reason.to_string())),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
        ];
        words.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
    }
}
