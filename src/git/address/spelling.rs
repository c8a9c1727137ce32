//! Whether an address with `.git` names the same repository as the address without. Hosts of a known product
//! serve both as one. For any other host the refs decide: if the two spellings list different refs, the
//! repository with the suffix is another one, and is requested only under that name.

use tidings_actors::ports::{GitError, GitSource, Location, RefListing, RefPatterns, Remote};

use crate::address::Address;

/// Lists the refs of the repository of an address, and decides which spelling of the address names it. Both
/// spellings are asked with the credential of `remote`.
///
/// # Errors
/// The error of the host for the spelling that was given.
pub async fn settled(
    git: &dyn GitSource,
    address: Address,
    remote: &Remote,
    patterns: &RefPatterns,
) -> Result<(Address, RefListing), GitError> {
    let plain = Remote { location: address.location.clone(), ..remote.clone() };
    let Some(url) = address.with_suffix.clone() else {
        return Ok((address, git.list_refs(&plain, patterns).await?));
    };
    let suffixed = Remote { location: Location::Http(url), ..remote.clone() };
    let both = async || (git.list_refs(&plain, patterns).await, git.list_refs(&suffixed, patterns).await);
    let (listed, listed_suffixed) = both().await;
    let found = match judged(listed, listed_suffixed) {
        // A push between the two requests may look like a difference: both are repeated.
        Ok(Found::Apart { is_sure: false, .. }) => {
            let (listed, listed_suffixed) = both().await;
            judged(listed, listed_suffixed)
        }
        found => found,
    };
    Ok(match found? {
        Found::Same(listing) => (address, listing),
        Found::Apart { listing, .. } => (address.kept_apart(), listing),
    })
}

/// The repositories of the two spellings.
#[derive(Debug)]
enum Found {
    /// Both spellings name one repository.
    Same(RefListing),
    /// The spellings name two repositories, or only the spelling with the suffix names one.
    Apart { listing: RefListing, is_sure: bool },
}

fn judged(
    plain: Result<RefListing, GitError>,
    suffixed: Result<RefListing, GitError>,
) -> Result<Found, GitError> {
    match (plain, suffixed) {
        (Ok(plain), Ok(suffixed)) => {
            let is_same = (&plain.refs, &plain.head) == (&suffixed.refs, &suffixed.head);
            Ok(if is_same { Found::Same(plain) } else { Found::Apart { listing: suffixed, is_sure: false } })
        }
        (Err(_), Ok(listing)) => Ok(Found::Apart { listing, is_sure: true }),
        (Ok(plain), Err(GitError::NotFound | GitError::Redirected | GitError::Moved(_))) => {
            Ok(Found::Same(plain))
        }
        (_, Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::Ref;
    use tidings_entity::id::ObjectId;

    use super::*;

    fn refs(number: u8) -> Result<RefListing, GitError> {
        let refs = vec![Ref { name: "refs/heads/main".into(), commit: ObjectId::new([number; 20]) }];
        Ok(RefListing { refs, has_refs: true, ..RefListing::default() })
    }

    #[test]
    fn two_spellings_are_one_repository_where_both_list_the_same() {
        let dumb = || Err(GitError::Protocol("plain files".into()));
        assert!(matches!(judged(refs(1), refs(1)), Ok(Found::Same(_))));
        assert!(matches!(judged(refs(1), Err(GitError::NotFound)), Ok(Found::Same(_))));
        assert!(matches!(judged(refs(1), refs(2)), Ok(Found::Apart { is_sure: false, .. })));
        assert!(matches!(
            judged(Err(GitError::Unauthorized), refs(2)),
            Ok(Found::Apart { is_sure: true, .. })
        ));
        assert!(
            matches!(judged(Err(GitError::NotFound), dumb()), Err(GitError::Protocol(_))),
            "what was given"
        );
        assert!(matches!(judged(refs(1), dumb()), Err(GitError::Protocol(_))), "what was given");
    }

    #[test]
    fn only_the_host_can_tell_where_its_product_is_not_known() {
        let address = |given: &str| Address::parse(given, false, true).expect("an address");
        for given in
            ["https://github.com/o/r.git", "https://git.example/o/r", "https://gitlab.example/o/r.git"]
        {
            assert_eq!(address(given).with_suffix, None, "{given}");
        }
        for given in
            ["https://git.example/o/r.git", "git@git.example:o/r.git", "https://git.example/o/r.git/"]
        {
            let apart = address(given).kept_apart();
            assert_eq!(apart.normalised, "https://git.example/o/r.git", "{given}");
            assert!(matches!(apart.location, Location::Http(url) if url.as_str() == apart.normalised));
        }
    }
}
