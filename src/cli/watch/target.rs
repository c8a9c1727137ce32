//! The repository that is watched: whether it is there, whether it may be read, and its branch. And the
//! receiver that changes go to: whether they may.

use std::{fs, io, path::Path};

use tidings_actors::{
    ports::{GitError, Location, RefListing, RefPatterns, Remote},
    secret::Secret,
};
use tidings_entity::id::RepositoryId;
use url::Url;

use super::super::{Code, Failure};
use crate::{
    app::Adapters,
    egress::{self, Egress},
    git::{address::Address, branches},
};

/// The address of a repository, from its text; a path must lead to a repository. Plain http is for this
/// machine alone unless `allow_http`.
///
/// # Errors
/// A text that is no address, and a path that leads to no repository.
pub(super) fn address(text: &str, allow_http: bool) -> Result<Address, Failure> {
    let is_loopback = Url::parse(text.trim()).is_ok_and(|url| egress::is_loopback(&url));
    let address = Address::parse(text, true, allow_http || is_loopback)
        .map_err(|reason| Failure::new(Code::Usage, reason.to_string()))?;
    match &address.location {
        Location::Local(path) => is_repository(text, path).map(|()| address),
        Location::Http(_) => Ok(address),
    }
}

/// Whether a path leads to a repository; else what it leads to.
fn is_repository(text: &str, path: &Path) -> Result<(), Failure> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut said = format!("{text}: there is no such folder");
            if is_owner_and_name(text) {
                said = format!("{said}; a repository at GitHub is https://github.com/{text}");
            }
            return Err(Failure::new(Code::NoInput, said));
        }
        Err(error) => return Err(Failure::new(Code::NoInput, format!("{text} cannot be read: {error}"))),
    };
    let holds_objects = |folder: &Path| folder.join("HEAD").is_file() && folder.join("objects").is_dir();
    if facts.is_dir() && (path.join(".git").exists() || holds_objects(path)) {
        return Ok(());
    }
    let kind = if facts.is_dir() { "is no Git repository" } else { "is a file, no Git repository" };
    let around = path.ancestors().skip(1).find(|folder| folder.join(".git").exists());
    let mend = match around {
        Some(around) => format!("; it lies in the repository {}", around.display()),
        None if facts.is_dir() => ": it holds no .git; `git init` makes one".to_owned(),
        None => "; give the folder that holds .git".to_owned(),
    };
    Err(Failure::new(Code::Data, format!("{text} {kind}{mend}")))
}

/// Whether a text looks like `owner/name`, as people name repositories of GitHub.
fn is_owner_and_name(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_word(owner) && is_word(name))
}

/// What the repository shows to this credential; its branch must be there.
///
/// # Errors
/// The host does not show the repository, or the branch is not there.
pub(super) async fn proved(
    branch: Option<&String>,
    adapters: &Adapters,
    address: &Address,
    credential: Option<Secret>,
) -> Result<RefListing, Failure> {
    let has_credential = credential.is_some();
    let remote = Remote {
        // Access is proved before the repository has a row; only the address matters for that.
        repository: RepositoryId::new(adapters.random.ulid(adapters.clock.now())),
        location: address.location.clone(),
        credential,
    };
    let list = async |patterns: RefPatterns| {
        let listed = adapters.git.list_refs(&remote, &patterns).await;
        listed.map_err(|reason| {
            let hint = match reason {
                GitError::NotFound | GitError::Unauthorized if !has_credential => {
                    "; a private repository needs --token-file"
                }
                _ => "",
            };
            Failure::new(Code::Unavailable, format!("{}: {reason}{hint}", address.display))
        })
    };
    let listing = list(branch.iter().map(|branch| format!("refs/heads/{branch}")).collect()).await?;
    if let Some(branch) = branch
        && !listing.refs.iter().any(|found| found.name == format!("refs/heads/{branch}"))
    {
        let all = list(branches::all()).await?;
        let reason = format!("{} has no branch {branch:?}; {}", address.display, branches::named(&all));
        return Err(Failure::new(Code::Data, reason));
    }
    if branch.is_none() && listing.head.is_none() {
        let all = list(branches::all()).await?;
        let reason =
            format!("{}: HEAD names no branch; give --branch: {}", address.display, branches::named(&all));
        return Err(Failure::new(Code::Data, reason));
    }
    Ok(listing)
}

/// Whether changes may go to the address of a receiver.
///
/// # Errors
/// A text that is no address, and an address that the egress rules refuse.
pub(super) fn judge_receiver(to: &str, egress: &Egress) -> Result<(), Failure> {
    let refused = |reason: String| Failure::new(Code::Usage, format!("{to}: {reason}"));
    if !to.contains("://") {
        return Err(refused(format!("the address has no scheme; write http://{to}")));
    }
    let url = to.parse().map_err(|error| refused(format!("this is no address: {error}")))?;
    egress.request(reqwest::Method::POST, &url).map(drop).map_err(|reason| refused(reason.to_string()))
}
