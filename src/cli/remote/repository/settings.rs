//! Arguments for the settings of a watch: it is registered with them, and they can be changed later.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::words;

/// The settings of a watch.
#[derive(Args, Debug)]
pub(in crate::cli) struct SettingsArgs {
    /// Include paths that match this glob, such as 'docs/**'; may be repeated. If there is none, every path
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Exclude paths that match this glob, such as '**/*.png'; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What to do with symbolic links: skip (the default) or send (as files whose content is the target)
    #[arg(long)]
    symlinks: Option<String>,
    /// What bodies carry of a file: inline (its content; the default) or none
    #[arg(long)]
    content: Option<String>,
    /// Leave out the content of files larger than this, in bytes (67108864 by default)
    #[arg(long, value_name = "BYTES", value_parser = words::bytes)]
    max_size: Option<u64>,
    /// If several commits arrive at once: net (send the net change once; the default) or every (send each
    /// commit)
    #[arg(long)]
    mode: Option<String>,
    /// What to do with the files of a branch of a pattern when the branch vanishes: delete (the default) or
    /// keep; files of a single branch always stay
    #[arg(long)]
    on_branch_gone: Option<String>,
    /// Show the state of the watch on each commit at its Git host: github, gitlab, gitea (also Forgejo), auto
    /// (by the credential or the name of the host; the default without a value), or off
    #[arg(long, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    status: Option<String>,
}

impl SettingsArgs {
    /// The fields of a body for the arguments that were given.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        for (name, globs) in [("include", &self.include), ("exclude", &self.exclude)] {
            if !globs.is_empty() {
                fields.insert(name.to_owned(), json!(globs));
            }
        }
        for (name, text) in [
            ("symlinks", &self.symlinks),
            ("content", &self.content),
            ("mode", &self.mode),
            ("on_branch_gone", &self.on_branch_gone),
            ("status", &self.status),
        ] {
            fields.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
        }
        fields.extend(self.max_size.map(|bytes| ("max_size".to_owned(), json!(bytes))));
        fields
    }
}
