//! Which refs a registration asks for: the default branch, one branch, or a pattern.

use globset::GlobBuilder;
use tidings_actors::ports::{RefListing, RefPatterns, Selector};
use tidings_entity::{id::ObjectId, kind::SelectorKind};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type},
};

/// Where branches lie.
const HEADS: &str = "refs/heads/";
/// Where tags lie.
const TAGS: &str = "refs/tags/";
/// What makes a branch name a pattern; none of them can be in the name of a ref.
const PATTERN: [char; 3] = ['*', '?', '['];

/// Which refs a watch follows.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the selector itself is written as")]
pub(super) struct SelectorShown {
    #[schema(schema_with = kinds)]
    kind: String,
    /// The short name of the branch, or the glob over short names; empty for the default branch.
    value: String,
}

fn kinds() -> ObjectBuilder {
    let words = SelectorKind::ALL.iter().map(|kind| kind.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// The selector of `branch` or `tags`, of which at most one is given.
///
/// # Errors
/// Which of the two is wrong, and how.
pub(crate) fn selector(
    branch: Option<&str>,
    tags: Option<&str>,
    multi_branch: bool,
) -> Result<Selector, (&'static str, String)> {
    let (field, text, kind) = match (branch, tags) {
        (None, None) => {
            return Ok(Selector { kind: SelectorKind::DefaultBranch, value: String::new() });
        }
        (Some(_), Some(_)) => return Err(("tags", "give branch or tags, not both".to_owned())),
        (None, Some(tags)) => ("tags", tags.strip_prefix(TAGS).unwrap_or(tags), SelectorKind::TagPattern),
        (Some(branch), None) => {
            let name = branch.strip_prefix(HEADS).unwrap_or(branch);
            let is_pattern = name.contains(PATTERN);
            let kind = if is_pattern { SelectorKind::BranchPattern } else { SelectorKind::Branch };
            ("branch", name, kind)
        }
    };
    let fault =
        if kind == SelectorKind::Branch { name_fault(text) } else { pattern_fault(text, multi_branch) };
    match fault {
        Some(fault) => Err((field, fault)),
        None => Ok(Selector { kind, value: text.to_owned() }),
    }
}

/// What to ask a Git host for.
pub(super) fn patterns(selector: &Selector) -> RefPatterns {
    let value = selector.value.as_str();
    let before_pattern = value.split(PATTERN).next().unwrap_or("");
    let folder = before_pattern.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = |root: &str| if folder.is_empty() { root.to_owned() } else { format!("{root}{folder}/") };
    match selector.kind {
        SelectorKind::DefaultBranch => Vec::new(),
        SelectorKind::Branch => vec![format!("{HEADS}{value}")],
        SelectorKind::BranchPattern => vec![below(HEADS)],
        SelectorKind::TagPattern => vec![below(TAGS)],
    }
}

/// Whether what was asked for is there. A repository without any commit has the branch that its
/// HEAD names.
pub(super) fn exists(selector: &Selector, listing: &RefListing) -> bool {
    let full = format!("{HEADS}{}", selector.value);
    match selector.kind {
        SelectorKind::Branch => {
            listing.refs.iter().any(|found| found.name == full)
                || (!listing.has_refs && listing.head.as_ref().is_none_or(|head| *head == full))
        }
        _ => true,
    }
}

/// The commit that a selector of one branch names now; none while the branch is unborn.
pub(super) fn head(selector: &Selector, listing: &RefListing) -> Option<ObjectId> {
    let named = match selector.kind {
        SelectorKind::Branch => format!("{HEADS}{}", selector.value),
        _ => listing.head.clone()?,
    };
    let find = |name: &str| listing.refs.iter().find(|found| found.name == name).map(|found| found.commit);
    find(&named).or_else(|| if selector.kind == SelectorKind::Branch { None } else { find("HEAD") })
}

/// The rules of `git check-ref-format` for a branch.
fn name_fault(name: &str) -> Option<String> {
    let forbidden = |c: char| c.is_control() || " ~^:\\".contains(c);
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let bad = name.starts_with('-')
        || name.ends_with('.')
        || name == "@"
        || name.contains("..")
        || name.contains("@{")
        || name.contains(forbidden)
        || name.split('/').any(bad_part);
    bad.then(|| "is not the name of a branch".to_owned())
}

fn pattern_fault(pattern: &str, multi_branch: bool) -> Option<String> {
    if !multi_branch {
        return Some("a pattern needs an app that was registered with delivery.multi_branch".to_owned());
    }
    if pattern.is_empty() || GlobBuilder::new(pattern).literal_separator(true).build().is_err() {
        return Some("is not a pattern".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(branch: &str) -> Result<Selector, (&'static str, String)> {
        selector(Some(branch), None, true)
    }

    #[test]
    fn names_and_patterns_of_branches_are_told_apart() {
        for (branch, kind, asked) in [
            ("main", SelectorKind::Branch, "refs/heads/main"),
            ("refs/heads/a/b", SelectorKind::Branch, "refs/heads/a/b"),
            ("{x}", SelectorKind::Branch, "refs/heads/{x}"),
            ("release/*", SelectorKind::BranchPattern, "refs/heads/release/"),
            ("rel*/x", SelectorKind::BranchPattern, "refs/heads/"),
        ] {
            let selector = of(branch).expect(branch);
            assert_eq!(selector.kind, kind, "{branch}");
            assert_eq!(patterns(&selector), [asked], "{branch}");
        }
        assert!(selector(Some("a*"), None, false).is_err(), "an app that would mix branches");
        assert!(selector(Some("a"), Some("v*"), true).is_err());
    }

    #[test]
    fn what_git_does_not_allow_as_a_branch_is_refused() {
        for branch in [
            "", "-x", "a..b", "a b", "a~1", "a^", "a:b", "a\\b", "a/", "/a", "a//b", ".a", "a.lock", "@",
            "a@{1}", "a.", "a\u{7f}",
        ] {
            assert!(of(branch).is_err(), "{branch:?}");
        }
        assert!(of("[").is_err());
    }
}
