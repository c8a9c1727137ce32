//! Proves, inside a request, that a credential gives access to a repository: one `ls-refs` with the
//! credential, and one without, to know whether the repository is private.

use std::time::Duration;

use http::StatusCode;
use tidings_actors::{
    model::secret::Secret,
    ports::{Extent, FetchOrder, GitError, Location, RefListing, RefPatterns, Remote},
};
use tidings_entity::id::{AppId, ObjectId, RepositoryId};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
};
use crate::{
    egress::EgressError,
    git::{
        address::{Address, spelling},
        branches,
        failure::{NO_TLS, PLAIN_FILES},
    },
};

/// How long both questions together may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The seconds that a client should wait if the Git host does not answer.
const RETRY_AFTER_SECONDS: u64 = 30;

/// The result of proving access.
pub(in crate::http::repositories) struct Proof {
    /// The address that names the repository at its host.
    pub(in crate::http::repositories) address: Address,
    /// The refs that were requested from the host.
    pub(in crate::http::repositories) listing: RefListing,
    /// Whether the repository cannot be read without a credential.
    pub(in crate::http::repositories) is_private: bool,
}

/// Asks the Git host for the refs, with and without the credential, in the turn of this app.
///
/// # Errors
/// The error of the request with the credential.
pub(in crate::http::repositories) async fn access(
    front: &Front,
    app: &AppId,
    address: Address,
    credential: Option<Secret>,
    patterns: &RefPatterns,
) -> Result<Proof, GitError> {
    let (has_credential, asked_at) = (credential.is_some(), Some(front.clock.now()));
    // Listing refs uses no mirror, so any id of a repository will do.
    let repository = RepositoryId::new(front.random.ulid(front.clock.now()));
    let apps = vec![app.clone()];
    let known = Remote { repository, location: address.location.clone(), credential, apps };
    let asked = async {
        let (address, listing) = spelling::settled(front.git.as_ref(), address, &known, patterns).await?;
        let anonymous = Remote { location: address.location.clone(), credential: None, ..known.clone() };
        let is_private =
            has_credential && front.git.list_refs(&anonymous, &RefPatterns::new()).await.is_err();
        Ok(Proof { address, listing: RefListing { asked_at, ..listing }, is_private })
    };
    let proof = timeout(DEADLINE, asked).await;
    proof.unwrap_or_else(|_| Err(GitError::Timeout(format!("no answer within {DEADLINE:?}"))))
}

/// All branches that the host shows to this credential, for the answer about an unknown branch; `None` if the
/// host does not answer.
pub(in crate::http::repositories) async fn branches(
    front: &Front,
    app: &AppId,
    location: Location,
    credential: Option<Secret>,
) -> Option<RefListing> {
    let repository = RepositoryId::new(front.random.ulid(front.clock.now()));
    let remote = Remote { repository, location, credential, apps: vec![app.clone()] };
    let all = branches::all();
    timeout(DEADLINE, front.git.list_refs(&remote, &all)).await.ok()?.ok()
}

/// Proves that the host sends this commit to this credential. Mirrors are shared by all apps that watch a
/// repository, so a commit in a mirror proves nothing: it is fetched into a separate mirror, which is removed
/// at once.
///
/// # Errors
/// [`GitError::Unobtainable`], [`GitError::NotACommit`] and [`GitError::Protocol`] if the id is no commit of
/// the repository, else the failure of the host or of the network.
pub(in crate::http::repositories) async fn commit(
    front: &Front,
    location: Location,
    credential: Option<Secret>,
    apps: &[AppId],
    commit: ObjectId,
) -> Result<(), GitError> {
    let repository = RepositoryId::new(front.random.ulid(front.clock.now()));
    let remote = Remote { repository, location, credential, apps: apps.to_vec() };
    // Its contents are fetched later, by a scan.
    let order = FetchOrder { wants: vec![commit], haves: Vec::new(), depth: 1, extent: Extent::Commit };
    let asked = async {
        front.git.fetch(&remote, &order).await?;
        front.git.commit(&remote, commit).await
    };
    let found = timeout(DEADLINE, asked).await;
    if let Err(error) = front.git.remove_mirror(&remote.repository).await {
        // Upkeep will remove this mirror, because no watch follows it.
        warn!(%error, "a mirror that proved a commit was not removed");
    }
    found.map_err(|_| GitError::Timeout(format!("no answer within {DEADLINE:?}")))?.map(drop)
}

/// The problem for a failed proof. `refused` is the status for a permanent refusal of the Git host: 404 when
/// registering, 422 when a credential is replaced.
pub(in crate::http::repositories) fn failure(
    error: &GitError,
    field: &str,
    has_credential: bool,
    refused: StatusCode,
) -> Problem {
    info!(code = error.code(), error = %error, "access to a repository was not proved");
    match error {
        GitError::Unauthorized if has_credential => {
            let said = "the Git host refuses the token: the token is wrong, has expired, or may not read \
                this repository";
            Problem::new(Kind::INVALID_GIT_TOKEN).with_status(refused).with_detail(said)
        }
        GitError::Unauthorized | GitError::NotFound => {
            let said = match has_credential {
                true => {
                    "the Git host shows no such repository to this credential: check the address, and \
                    what the credential may read"
                }
                false => {
                    "the Git host shows no such repository without a credential: check the address; a \
                    private repository needs a token"
                }
            };
            Problem::new(Kind::NOT_ACCESSIBLE).with_status(refused).with_detail(said)
        }
        GitError::Refused(_)
        | GitError::Redirected
        | GitError::Moved(_)
        | GitError::Credential(_)
        | GitError::Protocol(_)
        | GitError::UnsupportedObjectFormat
        | GitError::MalformedTree(_)
        | GitError::TooLarge(_) => Problem::invalid_field(field, public_text(error)),
        GitError::Status(status @ 400..=499) => Problem::new(Kind::UNVERIFIED)
            .with_status(refused)
            .with_detail(format!("the Git host answered with status {status}")),
        GitError::RateLimited { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
            Problem::new(Kind::UNVERIFIED).with_detail("the Git host asks to wait").retry_after(seconds)
        }
        other => Problem::new(Kind::UNVERIFIED).with_detail(silence(other)).retry_after(RETRY_AFTER_SECONDS),
    }
}

/// The beginnings of texts that may be shown, because they tell the owner of an address the remedy.
const PUBLIC_FAULTS: [&str; 2] = [PLAIN_FILES, NO_TLS];

/// Why a host gave no usable answer. Whether a port refused the connection or stayed silent is not shown: an
/// app could map a network with it.
fn silence(error: &GitError) -> String {
    match error {
        GitError::Unreachable(words) if *words == EgressError::Unresolved.to_string() => {
            format!("{words}: check the spelling of the address")
        }
        GitError::Status(status) => format!("the Git host answered with status {status}"),
        _ => "the Git host did not answer".to_owned(),
    }
}

/// The public text about an address that is no usable repository.
fn public_text(error: &GitError) -> String {
    match error {
        GitError::Protocol(words) if PUBLIC_FAULTS.iter().any(|fault| words.starts_with(fault)) => {
            format!("the address does not speak the Git protocol: {words}")
        }
        GitError::Protocol(_) => "the address does not speak the Git protocol".to_owned(),
        GitError::Redirected => "the address answers with a redirect; give the one it leads to".to_owned(),
        other => other.to_string(),
    }
}
