//! The branches of a repository, listed for a person who named a branch that does not exist.

use tidings_actors::ports::{RefListing, RefPatterns};

/// Prefix of the full names of branches.
const HEADS: &str = "refs/heads/";
/// The most branches that an error names.
const NAMED_MAX: usize = 10;

/// The patterns that ask for all branches.
#[must_use]
pub fn all() -> RefPatterns {
    vec![HEADS.to_owned()]
}

/// The first ten branches of a listing, and how many more there are.
#[must_use]
pub fn named(listing: &RefListing) -> String {
    let mut branches: Vec<&str> =
        listing.refs.iter().filter_map(|found| found.name.strip_prefix(HEADS)).collect();
    branches.sort_unstable();
    let more = branches.len().saturating_sub(NAMED_MAX);
    let shown = branches[..branches.len() - more].join(", ");
    // A host may name anything.
    let shown: String = shown.chars().filter(|c| !c.is_control()).collect();
    match (branches.len(), more) {
        (0, _) => "it has no branch yet".to_owned(),
        (1, _) => format!("its only branch is {shown}"),
        (_, 0) => format!("its branches are {shown}"),
        _ => format!("its branches are {shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::Ref;
    use tidings_entity::id::ObjectId;

    use super::*;

    fn of(count: usize) -> String {
        let commit = ObjectId::new([1; 20]);
        let mut refs: Vec<Ref> =
            (0..count).map(|number| Ref { name: format!("{HEADS}b{number:02}"), commit }).collect();
        refs.push(Ref { name: "refs/tags/v1".to_owned(), commit });
        named(&RefListing { refs, ..RefListing::default() })
    }

    #[test]
    fn at_most_ten_branches_are_named() {
        assert_eq!(of(0), "it has no branch yet");
        assert_eq!(of(1), "its only branch is b00");
        assert_eq!(of(2), "its branches are b00, b01");
        assert!(of(10).ends_with("b08, b09"));
        assert!(of(32).ends_with("b08, b09 and 22 more"));
    }
}
