//! What is delivered of a repository, as arguments: the settings that a watch is registered with and that
//! can be changed later.

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::words;

/// The settings of a watch.
#[derive(Args, Debug)]
pub(in crate::cli) struct SettingsArgs {
    /// Glob of which one must match a path (may be repeated); none: every path
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Glob of which none may match a path (may be repeated)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Symbolic links: skip (the default) or send
    #[arg(long)]
    symlinks: Option<String>,
    /// Contents of files: inline (the default) or none
    #[arg(long)]
    content: Option<String>,
    /// Content of larger files is left out (bytes; 67108864 by default)
    #[arg(long, value_name = "BYTES", value_parser = words::bytes)]
    max_size: Option<u64>,
    /// What is sent of several commits: net (the net change once; the default) or every (each commit)
    #[arg(long)]
    mode: Option<String>,
    /// What happens to the files of a pattern's branch that vanished: delete (the default) or keep; those of
    /// a single branch stay
    #[arg(long)]
    on_branch_gone: Option<String>,
}

impl SettingsArgs {
    /// The fields of a body that they stand for: those that were given.
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
        ] {
            fields.extend(text.as_ref().map(|text| (name.to_owned(), json!(text))));
        }
        fields.extend(self.max_size.map(|bytes| ("max_size".to_owned(), json!(bytes))));
        fields
    }
}
