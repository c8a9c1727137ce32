//! `tidings repository preview`: lists the files of a repository that a watch would deliver, before the watch
//! exists.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::access::AccessArgs;
use crate::cli::{Context, Failure, client::ServerArgs, output::shown};

#[derive(Args, Debug)]
pub(in crate::cli) struct PreviewArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Address of the repository; a path, too, if the server may read local repositories
    url: String,
    /// One branch or a pattern ('release/*'); if missing, the default branch. Of the refs that a pattern
    /// matches, the ref with the greatest version in its name is shown
    #[arg(long)]
    branch: Option<String>,
    /// A pattern of tags, instead of a branch
    #[arg(long, conflicts_with = "branch")]
    tags: Option<String>,
    /// Include paths that match this glob, such as 'docs/**'; may be repeated. If there is none, every path
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Exclude paths that match this glob, such as '**/*.png'; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What to do with symbolic links: skip (the default) or send (as files whose content is the target)
    #[arg(long)]
    symlinks: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) async fn run(arguments: PreviewArgs, context: &Context) -> Result<(), Failure> {
    let mut fields = arguments.access.fields(context)?;
    fields.insert("url".to_owned(), json!(arguments.url));
    for (name, text) in
        [("branch", arguments.branch), ("tags", arguments.tags), ("symlinks", arguments.symlinks)]
    {
        fields.extend(text.map(|text| (name.to_owned(), json!(text))));
    }
    for (name, globs) in [("include", arguments.include), ("exclude", arguments.exclude)] {
        if !globs.is_empty() {
            fields.insert(name.to_owned(), json!(globs));
        }
    }
    let path = ["api", "repositories", "preview"];
    let client = context.client(&arguments.server)?;
    let preview = client.call(Method::POST, &path, Some(&Value::Object(fields))).await?;
    context.output.print(&preview, &described(&preview))
}

/// The matching paths, and how many of how many they are.
fn described(preview: &Value) -> Vec<String> {
    if preview["matching_refs"] == json!(0) {
        return vec!["no ref of the repository matches the pattern; a watch waits for the first".to_owned()];
    }
    if preview["commit"].is_null() {
        return vec!["the repository has no commit yet".to_owned()];
    }
    let paths = preview["paths"].as_array().map_or(&[][..], Vec::as_slice);
    let mut lines: Vec<String> = paths.iter().map(shown).collect();
    let matching = preview["matching"].as_u64().unwrap_or(0);
    if matching > lines.len() as u64 {
        lines.push(format!("and {} more", matching - lines.len() as u64));
    }
    let (branch, commit) = (shown(&preview["branch"]), shown(&preview["commit"]));
    let refs = match preview["matching_refs"].as_u64() {
        Some(refs @ 2..) => format!("; the pattern matches {refs} refs"),
        _ => String::new(),
    };
    let of = match preview["files"].as_u64() {
        Some(1) => "1 file matches".to_owned(),
        _ => format!("{} files match", shown(&preview["files"])),
    };
    lines.push(format!("{matching} of {of}, on {branch} at {commit}{refs}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_shown_by_one_ref_of_those_that_it_matches() {
        let mut preview = json!({ "branch": "release/2", "commit": "abc", "matching_refs": 3, "matching": 1,
            "files": 4, "paths": ["a.md"] });
        let last = "1 of 4 files match, on release/2 at abc; the pattern matches 3 refs";
        assert_eq!(described(&preview), ["a.md", last]);
        preview["matching_refs"] = json!(1);
        assert_eq!(described(&preview)[1], "1 of 4 files match, on release/2 at abc");
        preview["files"] = json!(1);
        assert_eq!(described(&preview)[1], "1 of 1 file matches, on release/2 at abc");
        let none = described(&json!({ "commit": null, "matching_refs": 0 }));
        assert!(none[0].starts_with("no ref of the repository matches"), "{none:?}");
        let empty = described(&json!({ "commit": null }));
        assert_eq!(empty, ["the repository has no commit yet"]);
    }
}
