//! The refs of a registration: the default branch, one ref, or a pattern. `tidings_actors::selector` decides
//! what a name means and which names are valid.

use tidings_actors::{
    model::{follow::newest, round::short_ref},
    ports::{RefListing, RefPatterns, Selector},
};
use tidings_entity::{id::ObjectId, kind::SelectorKind};
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type},
};

/// The branches or refs that a watch follows.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the selector itself is written as")]
pub(in crate::http::repositories) struct SelectorShown {
    #[schema(schema_with = kinds)]
    kind: String,
    /// For `branch`: its short name. For `branch_pattern` and `tag_pattern`: a glob over short names. For
    /// `ref` and `ref_pattern`: the full name, or a glob over full names (`refs/pull/*/head`). Empty for
    /// `default_branch`.
    value: String,
}

fn kinds() -> ObjectBuilder {
    let words = SelectorKind::ALL.iter().map(|kind| kind.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// The selector of `branch` or `tags`, of which at most one is given.
///
/// # Errors
/// Names the invalid one of the two, and its fault.
pub(crate) fn selector(
    branch: Option<&str>,
    tags: Option<&str>,
    multi_branch: bool,
) -> Result<Selector, (&'static str, String)> {
    let (field, selector) = match (branch, tags) {
        (None, None) => return Ok(Selector::default_branch()),
        (Some(_), Some(_)) => return Err(("tags", "give branch or tags, not both".to_owned())),
        (None, Some(tags)) => ("tags", Selector::of_tags(tags)),
        (Some(branch), None) => ("branch", Selector::named(branch)),
    };
    let selector = selector.map_err(|fault| (field, fault))?;
    if selector.is_pattern() && !multi_branch {
        let fault = "a pattern needs delivery.multi_branch, which the app has not set: PATCH /api/app, or \
                     `tidings app update --multi-branch true`";
        return Err((field, fault.to_owned()));
    }
    Ok(selector)
}

/// The refs to ask a Git host for.
pub(in crate::http::repositories) fn patterns(selector: &Selector) -> RefPatterns {
    selector.ref_pattern().into_iter().collect()
}

/// Whether the requested refs exist. A repository without a commit has the branch that its HEAD names.
pub(in crate::http::repositories) fn exists(selector: &Selector, listing: &RefListing) -> bool {
    let Some(full) = selector.single_ref(None).filter(|name| !name.is_empty()) else { return true };
    let is_unborn = || {
        selector.kind == SelectorKind::Branch
            && !listing.has_refs
            && listing.head.as_ref().is_none_or(|head| *head == full)
    };
    listing.refs.iter().any(|found| found.name == full) || is_unborn()
}

/// The commit of a selector with a single ref; `None` while the branch has no commit.
pub(in crate::http::repositories) fn head(selector: &Selector, listing: &RefListing) -> Option<ObjectId> {
    let named = selector.single_ref(listing.head.as_deref()).filter(|name| !name.is_empty())?;
    let find = |name: &str| listing.refs.iter().find(|found| found.name == name).map(|found| found.commit);
    find(&named).or_else(|| if selector.kind == SelectorKind::DefaultBranch { find("HEAD") } else { None })
}

/// The refs of a listing that a pattern matches, by their full names; `None` for a selector of one ref.
pub(in crate::http::repositories) fn matched<'l>(
    selector: &Selector,
    listing: &'l RefListing,
) -> Option<Vec<&'l str>> {
    let matcher = selector.matcher()?;
    let names = listing.refs.iter().map(|found| found.name.as_str());
    Some(names.filter(|name| matcher.matches(name)).collect())
}

/// The ref that stands for a selector, by its short name, and its commit: the single ref, or of the refs that
/// a pattern matches the ref with the greatest version in its name. `None` while there is none. The name is
/// missing if the Git host does not name the default branch.
pub(in crate::http::repositories) fn example(
    selector: &Selector,
    listing: &RefListing,
) -> Option<(Option<String>, ObjectId)> {
    let named = |name: &str| Some(short_ref(name).to_owned());
    if let Some(names) = matched(selector, listing) {
        let name = *newest(names, 1).first()?;
        let found = listing.refs.iter().find(|found| found.name == name)?;
        return Some((named(name), found.commit));
    }
    let commit = head(selector, listing)?;
    let name = selector.single_ref(listing.head.as_deref()).filter(|name| !name.is_empty());
    Some((name.as_deref().and_then(named), commit))
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::Ref;

    use super::*;

    #[test]
    fn at_most_one_of_branch_and_tags_is_given_and_patterns_need_an_app_that_mixes_branches() {
        assert_eq!(selector(None, None, false), Ok(Selector::default_branch()));
        assert_eq!(selector(Some("refs/pull/*/head"), None, false).expect_err("mixes").0, "branch");
        assert_eq!(selector(None, Some("v*"), false).expect_err("mixes").0, "tags");
        assert!(selector(Some("refs/pull/*/head"), None, true).is_ok());
        assert_eq!(selector(Some("a"), Some("v*"), true).expect_err("both").0, "tags");
        let (field, fault) = selector(Some("refs/notes/a..b"), None, true).expect_err("no name");
        assert_eq!((field, fault.as_str()), ("branch", "is not the name of a ref: it must not contain `..`"));
    }

    #[test]
    fn a_single_ref_must_be_there_and_a_pattern_need_not() {
        let commit = ObjectId::new([7; 20]);
        let refs = ["refs/heads/main", "refs/notes/x"].map(|name| Ref { name: name.to_owned(), commit });
        let listing = RefListing { refs: refs.into(), has_refs: true, ..RefListing::default() };
        let of = |text| Selector::named(text).expect("valid");
        for (text, is_there) in [
            ("main", true),
            ("refs/notes/x", true),
            ("refs/notes/y", false),
            ("notes/x", false),
            ("refs/pull/*/head", true),
        ] {
            assert_eq!(exists(&of(text), &listing), is_there, "{text}");
        }
        assert_eq!(head(&of("refs/notes/x"), &listing), Some(commit));
        let unborn = RefListing { head: Some("refs/heads/main".to_owned()), ..RefListing::default() };
        assert!(exists(&of("main"), &unborn) && !exists(&of("dev"), &unborn));
        assert!(!exists(&of("refs/notes/x"), &unborn));
    }

    #[test]
    fn a_pattern_is_stood_for_by_the_ref_with_the_greatest_version_that_it_matches() {
        let names =
            ["HEAD", "refs/heads/main", "refs/heads/release/9", "refs/heads/release/10", "refs/tags/v1"];
        let refs = names
            .iter()
            .zip(1..)
            .map(|(name, byte)| Ref { name: (*name).to_owned(), commit: ObjectId::new([byte; 20]) });
        let head = Some("refs/heads/main".to_owned());
        let listing = RefListing { refs: refs.collect(), has_refs: true, head, ..RefListing::default() };
        let of = |selector: &Selector| example(selector, &listing);
        let is = |name: &str, byte: u8| Some((Some(name.to_owned()), ObjectId::new([byte; 20])));
        assert_eq!(of(&Selector::named("release/*").expect("valid")), is("release/10", 4));
        assert_eq!(of(&Selector::of_tags("v*").expect("valid")), is("v1", 5));
        assert_eq!(of(&Selector::named("hotfix/*").expect("valid")), None, "and not the default branch");
        assert_eq!(of(&Selector::default_branch()), is("main", 2));
        assert_eq!(of(&Selector::named("release/9").expect("valid")), is("release/9", 3));
        let counted =
            |text| matched(&Selector::named(text).expect("valid"), &listing).map(|names| names.len());
        assert_eq!((counted("release/*"), counted("hotfix/*"), counted("main")), (Some(2), Some(0), None));
    }
}
