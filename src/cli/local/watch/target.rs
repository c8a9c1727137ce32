//! The watched repository (whether it exists and may be read, and its refs), and the receiver of its changes
//! (whether the address is allowed).

use std::path::Path;

use tidings_actors::{
    model::secret::Secret,
    ports::{GitError, Location, RefListing, RefPatterns, Remote, Selector},
};
use tidings_entity::{id::RepositoryId, kind::SelectorKind};
use url::Url;

use crate::cli::{
    Code, Failure,
    client::{has_host, without_user},
    folder,
};
use crate::{
    app::Adapters,
    egress::{self, Egress},
    git::{
        address::{Address, InvalidAddress, spelling},
        branches,
    },
};

/// The address of a repository, from its text. A path must lead to a repository, or into its work tree.
/// Plain http is for this machine alone unless `allow_http`.
///
/// # Errors
/// A text that is no address, and a path that leads to no repository.
pub(super) fn address(text: &str, allow_http: bool) -> Result<Address, Failure> {
    let is_loopback = Url::parse(text.trim()).is_ok_and(|url| egress::is_loopback(&url));
    let address = Address::parse(text, true, allow_http || is_loopback).map_err(unusable)?;
    let address = folder::followed(text, address);
    match &address.location {
        Location::Local(path) => match folder::work_tree_around(path).and_then(Path::to_str) {
            Some(around) => Address::parse(around, true, false).map_err(unusable),
            None => folder::check(text, path).map(|()| address),
        },
        Location::Http(_) => Ok(address),
    }
}

/// The failure for a text that is no address. `watch` takes a token with another option than the verbs of a
/// server.
fn unusable(reason: InvalidAddress) -> Failure {
    let said = match reason {
        InvalidAddress::Credential => {
            "the address holds a user name, password or token; give a token with --token-file".to_owned()
        }
        reason => reason.to_string(),
    };
    Failure::new(Code::Usage, said)
}

/// The refs of the repository that this credential may read; a single ref must be among them.
///
/// # Errors
/// If the host does not show the repository, or the ref does not exist.
pub(super) async fn proved(
    selector: &Selector,
    adapters: &Adapters,
    address: &Address,
    credential: Option<Secret>,
) -> Result<(Address, RefListing), Failure> {
    let has_credential = credential.is_some();
    let remote = Remote {
        // Access is proved before the repository has a row; only the address matters for that.
        repository: RepositoryId::new(adapters.random.ulid(adapters.clock.now())),
        location: address.location.clone(),
        credential,
        apps: Vec::new(),
    };
    let failure = |reason: GitError| {
        let hint = match reason {
            GitError::NotFound | GitError::Unauthorized if !has_credential => {
                "; a private repository needs --token-file"
            }
            _ => "",
        };
        let ssh = address.way_around(&reason).map(|words| format!("; {words}")).unwrap_or_default();
        Failure::new(Code::Unavailable, format!("{}: {reason}{hint}{ssh}", address.display))
    };
    let asked: RefPatterns = selector.ref_pattern().into_iter().collect();
    let settled = spelling::settled(adapters.git.as_ref(), address.clone(), &remote, &asked).await;
    let (settled, listing) = settled.map_err(failure)?;
    let remote = Remote { location: settled.location.clone(), ..remote };
    there(selector, adapters, &remote, &address.display, &listing, false).await?;
    Ok((settled, listing))
}

/// Checks that the one ref that a selector follows is in a listing; any listing has what a pattern follows. A
/// default branch may be unborn in a repository without refs, unless it `had` commits before.
///
/// # Errors
/// If the ref does not exist, or the host does not list the branches that there are instead.
pub(super) async fn there(
    selector: &Selector,
    adapters: &Adapters,
    remote: &Remote,
    shown: &str,
    listing: &RefListing,
    had: bool,
) -> Result<(), Failure> {
    let is_listed = |name: &str| listing.refs.iter().any(|found| found.name == name);
    let existing = async || match adapters.git.list_refs(remote, &branches::all()).await {
        Ok(all) => Ok(branches::named(&all)),
        Err(reason) => Err(Failure::new(Code::Unavailable, format!("{shown}: {reason}"))),
    };
    let single = selector.single_ref(None).filter(|name| !name.is_empty());
    if let Some(reason) = single.as_ref().and_then(|name| listing.unreadable.get(name)) {
        return Err(Failure::new(Code::Data, format!("{shown}: {reason}")));
    }
    if single.is_some_and(|name| !is_listed(&name)) {
        let name = &selector.value;
        let reason = match selector.kind {
            SelectorKind::Ref => format!("{shown} has no ref {name:?}"),
            _ => format!("{shown} has no branch {name:?}; {}", existing().await?),
        };
        return Err(Failure::new(Code::Data, reason));
    }
    let head = listing.head.as_deref();
    let may_be_unborn = !listing.has_refs && !had;
    let is_missing = head.is_none_or(|head| !may_be_unborn && !is_listed(head));
    if selector.kind == SelectorKind::DefaultBranch && is_missing {
        let named = match head {
            Some(head) => {
                format!("{}, which does not exist", head.strip_prefix("refs/heads/").unwrap_or(head))
            }
            None => "no branch".to_owned(),
        };
        let reason = format!("{shown}: HEAD names {named}; give --branch: {}", existing().await?);
        return Err(Failure::new(Code::Data, reason));
    }
    Ok(())
}

/// Whether changes may go to the address of a receiver.
///
/// # Errors
/// A text that is no address, and an address that the egress rules refuse.
pub(super) fn judge_receiver(to: &str, egress: &Egress) -> Result<(), Failure> {
    let refused = |reason: String| Failure::new(Code::Usage, format!("{}: {reason}", without_user(to)));
    if !to.contains("://") {
        let written = if has_host(to) { format!("http://{to}") } else { "http://HOST/PATH".to_owned() };
        return Err(refused(format!("the address has no scheme; write {written}")));
    }
    let url: Url = to.parse().map_err(|error| refused(format!("this is no address: {error}")))?;
    match url.scheme() {
        "http" | "https" => {}
        "nats" | "tls" => {
            let why = "tidings watch sends to no stream; give an http:// or https:// address, or let a \
                       server send to the stream (tidings repository add --sink-url)";
            return Err(refused(why.to_owned()));
        }
        scheme => {
            let why = format!("changes are not sent by {scheme}; give an http:// or https:// address");
            return Err(refused(why));
        }
    }
    if url.query().is_some() || url.fragment().is_some() {
        let why = "the address must not hold a query or a fragment, because a path is appended to it";
        return Err(refused(why.to_owned()));
    }
    egress.request(reqwest::Method::POST, &url).map(drop).map_err(|reason| refused(reason.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_inside_a_work_tree_means_its_repository() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("work");
        std::fs::create_dir_all(root.join(".git")).expect("made");
        std::fs::create_dir_all(root.join("docs/api")).expect("made");
        for inside in [root.join("docs/api"), root.join("docs"), root.clone()] {
            let found = address(inside.to_str().expect("text"), false).expect("an address");
            assert_eq!(found.location, Location::Local(root.clone()), "{inside:?}");
        }
        assert!(
            address(root.join("absent").to_str().expect("text"), false).is_err(),
            "git goes nowhere either"
        );
    }

    #[test]
    fn an_address_with_a_password_is_told_with_the_option_of_this_verb() {
        let said = address("https://me:hush@git.example/o/r", false).expect_err("a password").message;
        assert!(said.ends_with("give a token with --token-file") && !said.contains("hush"), "{said}");
    }

    #[test]
    fn a_receiver_with_a_query_or_a_fragment_is_refused() {
        let egress = Egress::new(&crate::settings::EgressSettings::default()).expect("settings");
        for to in ["https://app.example/x?y=1", "https://app.example/x#frag"] {
            let failure = judge_receiver(to, &egress).expect_err(to);
            assert!(failure.message.contains("a query or a fragment"), "{to}: {}", failure.message);
        }
        for (to, part) in [
            ("nats://broker.example/changes", "sends to no stream; give an http:// or https:// address"),
            ("ftp://app.example/in", "changes are not sent by ftp; give an http:// or https:// address"),
            ("./in", "the address has no scheme; write http://HOST/PATH"),
            ("javascript:alert(1)", "the address has no scheme; write http://HOST/PATH"),
            ("app.example:80/in", "the address has no scheme; write http://app.example:80/in"),
            ("me:hush@app.example", "@app.example: the address has no scheme"),
            ("https://me:hush@app.example/in", "@app.example/in: "),
        ] {
            let failure = judge_receiver(to, &egress).expect_err(to);
            assert!(failure.message.contains(part), "{to}: {}", failure.message);
            assert!(!failure.message.contains("hush"), "{to}: {}", failure.message);
        }
        judge_receiver("https://app.example/x/", &egress).expect("an address");
    }
}
