//! The capabilities of a host for a repository, read once with `GET info/refs` and remembered for a day, so
//! that an unchanged poll is a single request.
//!
//! Hosts differ in whether `.git` belongs to the address. The address is tried as it is; if the answer is a
//! redirect (which is never followed) or 404, the other form is tried on the same host, and the form that
//! worked is remembered.
//!
//! If a host says that a repository moved permanently (it was renamed, or got a new owner), the new address
//! is used if scheme, host and port stay the same and it answers as a repository to the same credential.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_actors::ports::{GitError, RefListing, RefPatterns};
use tokio::time::Instant;
use url::Url;

use super::{
    client::{Answer, Body, Client, Question, Requester},
    listing::Listing,
    packet::{self, Packet},
};
use crate::settings::GitSettings;
use crate::{address::Address, failure};

/// How long capabilities are remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(24);
/// Above this many repositories the oldest knowledge is dropped.
const REPOSITORIES_KEPT: usize = 50_000;

/// The capabilities of a host for one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// The form of the address that the host answers at.
    pub(crate) base: Url,
    /// The version of the protocol that the host speaks, with its features.
    pub(crate) protocol: Protocol,
}

/// The version of the Git protocol that a host speaks, with its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Version 2 of the protocol (gitprotocol-v2(5)).
    Two {
        /// `ls-refs` names the branch of an empty repository.
        unborn: bool,
        /// The host expects the object format in requests.
        object_format: bool,
        /// Contents, or trees as well, can be left out of a fetch.
        filter: bool,
    },
    /// Version 0 or 1: every listing is the whole advertisement.
    Zero {
        /// `shallow` and `deepen` are understood.
        shallow: bool,
        /// Packs come multiplexed; without it there is no fetching.
        side_band: bool,
        /// Deltas may refer to their base by offset.
        ofs_delta: bool,
        /// Deltas may have a base that is here already.
        thin_pack: bool,
        /// Progress texts can be switched off.
        no_progress: bool,
        /// Contents can be left out of a fetch, and be asked for by id later.
        filter: bool,
    },
}

impl Protocol {
    /// Whether less than everything of a commit can be asked for.
    pub(crate) fn can_filter(self) -> bool {
        match self {
            Self::Two { filter, .. } | Self::Zero { filter, .. } => filter,
        }
    }
}

/// The result of the first request to a host for one repository.
pub(crate) struct Discovery {
    /// The capabilities of the host.
    pub(crate) capabilities: Capabilities,
    /// The refs, if the host does not speak version 2 and lists them at once.
    pub(crate) listing: Option<RefListing>,
}

/// The capabilities of hosts, by address.
#[derive(Default)]
pub(crate) struct CapabilityCache {
    known: Mutex<HashMap<Box<str>, Remembered>>,
}

/// The capabilities of one address. Every repository has an entry, so an entry is small.
struct Remembered {
    /// The form of the address that the host answers at; `None`: the address itself.
    base: Option<Box<Url>>,
    protocol: Protocol,
    learned: Instant,
}

impl Remembered {
    fn is_valid(&self) -> bool {
        self.learned.elapsed() < REMEMBERED_FOR
    }
}

impl CapabilityCache {
    /// The capabilities of an address that are still valid.
    pub(crate) fn get(&self, url: &Url) -> Option<Capabilities> {
        let known = self.known.lock();
        let found = known.get(url.as_str()).filter(|found| found.is_valid())?;
        Some(Capabilities { base: found.base.as_deref().unwrap_or(url).clone(), protocol: found.protocol })
    }

    /// Whether the capabilities of an address are known.
    pub(crate) fn knows(&self, url: &Url) -> bool {
        self.known.lock().get(url.as_str()).is_some_and(Remembered::is_valid)
    }

    /// Stores capabilities that were read.
    pub(crate) fn put(&self, url: &Url, capabilities: &Capabilities) {
        let mut known = self.known.lock();
        if known.len() >= REPOSITORIES_KEPT {
            known.retain(|_, found| found.is_valid());
            if known.len() >= REPOSITORIES_KEPT {
                known.clear();
            }
        }
        let Capabilities { base, protocol } = capabilities;
        let base = (base != url).then(|| Box::new(base.clone()));
        let remembered = Remembered { base, protocol: *protocol, learned: Instant::now() };
        known.insert(url.as_str().into(), remembered);
    }

    /// Records that a host does not apply the filters that it offers.
    pub(crate) fn no_filter(&self, url: &Url) {
        let mut known = self.known.lock();
        if let Some(found) = known.get_mut(url.as_str())
            && let Protocol::Two { filter, .. } | Protocol::Zero { filter, .. } = &mut found.protocol
        {
            *filter = false;
        }
    }

    /// Forgets an address whose host turned out to differ.
    pub(crate) fn forget(&self, url: &Url) {
        self.known.lock().remove(url.as_str());
    }
}

/// Asks a host for its capabilities.
pub(crate) async fn discover(
    client: &Client,
    settings: &GitSettings,
    url: &Url,
    requester: Requester<'_>,
    patterns: &RefPatterns,
) -> Result<Discovery, GitError> {
    let ask = async |url: &Url| advertisement(client, settings, url, requester, patterns).await;
    let first = match ask(url).await {
        Err(first @ (GitError::Redirected | GitError::NotFound | GitError::Moved(_))) => first,
        other => return other,
    };
    let moved = match &first {
        GitError::Moved(target) => target.clone(),
        // An address that was given with its suffix may be another repository than the one without.
        _ if url.path().ends_with(".git") => return Err(first),
        _ => match ask(&other_form(url)).await {
            Err(GitError::Moved(target)) => target,
            Err(GitError::NotFound | GitError::Redirected | GitError::Protocol(_)) => return Err(first),
            other => return other,
        },
    };
    let Some(target) = on_the_same_host(url, &moved) else { return Err(GitError::Moved(moved)) };
    // Once, and no further.
    let is_nowhere =
        |error: &GitError| matches!(error, GitError::Redirected | GitError::NotFound | GitError::Moved(_));
    match ask(&target).await {
        Err(error) if is_nowhere(&error) => match ask(&other_form(&target)).await {
            Err(error) if is_nowhere(&error) => Err(GitError::Moved(moved)),
            other => other,
        },
        other => other,
    }
}

/// The address that a repository moved to, if the credential of the old address may be sent there.
fn on_the_same_host(url: &Url, moved: &str) -> Option<Url> {
    let origin =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    Url::parse(moved).ok().filter(|target| origin(target) == origin(url))
}

/// The normalised address of a repository that was found at `base`, where that is another repository's
/// name than `url`.
pub(crate) fn moved_to(url: &Url, base: &Url) -> Option<String> {
    // Each poll asks this. To read two addresses takes a tenth of the time of a poll.
    if url == base {
        return None;
    }
    let normalised =
        |url: &Url| Address::parse(url.as_str(), false, true).ok().map(|address| address.normalised);
    normalised(base).filter(|found| normalised(url).as_ref() != Some(found))
}

/// The address with `.git` added, or without it.
fn other_form(url: &Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let mut other = url.clone();
    match path.strip_suffix(".git") {
        Some(path) => other.set_path(path),
        None => other.set_path(&format!("{path}.git")),
    }
    other
}

async fn advertisement(
    client: &Client,
    settings: &GitSettings,
    base: &Url,
    requester: Requester<'_>,
    patterns: &RefPatterns,
) -> Result<Discovery, GitError> {
    let question = Question {
        base,
        requester,
        body: Body::Advertisement,
        version_2: true,
        max_bytes: settings.listing_max_bytes,
        takes_long: false,
        deadline: settings.poll_timeout,
    };
    let mut answer = client.ask(question).await?;
    let mut first = data(&mut answer).await?;
    if packet::line(&first).starts_with(b"# service=") {
        if answer.packet().await? != Some(Packet::Flush) {
            return Err(GitError::Protocol("the service line is not followed by a flush".to_owned()));
        }
        first = data(&mut answer).await?;
    }
    match packet::line(&first) {
        b"version 2" => {
            let protocol = version_2(&mut answer).await?;
            answer.end().await;
            Ok(Discovery { capabilities: Capabilities { base: base.clone(), protocol }, listing: None })
        }
        b"version 1" => {
            let first = data(&mut answer).await?;
            version_0(&mut answer, first, base, patterns).await
        }
        _ => version_0(&mut answer, first, base, patterns).await,
    }
}

async fn data(answer: &mut Answer) -> Result<Bytes, GitError> {
    match answer.packet().await? {
        Some(Packet::Data(data)) => match data.strip_prefix(b"ERR ") {
            Some(text) => Err(GitError::Protocol(format!("the host says: {}", failure::shown(text)))),
            None => Ok(data),
        },
        _ => Err(GitError::Protocol("the advertisement ends early".to_owned())),
    }
}

async fn version_2(answer: &mut Answer) -> Result<Protocol, GitError> {
    let (mut unborn, mut object_format, mut filter) = (false, false, false);
    let (mut list, mut fetch) = (false, false);
    loop {
        let data = match answer.packet().await? {
            Some(Packet::Data(data)) => data,
            Some(Packet::Flush) => break,
            _ => return Err(GitError::Protocol("the capabilities end early".to_owned())),
        };
        let line = String::from_utf8_lossy(packet::line(&data)).into_owned();
        let (name, value) = line.split_once('=').unwrap_or((&line, ""));
        match name {
            "ls-refs" => (list, unborn) = (true, value.split(' ').any(|feature| feature == "unborn")),
            "fetch" => {
                let offers = |name| value.split(' ').any(|feature| feature == name);
                (fetch, filter) = (offers("shallow"), offers("filter"));
            }
            "object-format" => {
                check_format(value)?;
                object_format = true;
            }
            _ => {}
        }
    }
    if list && fetch {
        Ok(Protocol::Two { unborn, object_format, filter })
    } else {
        Err(GitError::Protocol("the host offers no ls-refs, or no fetch with shallow".to_owned()))
    }
}

fn check_format(format: &str) -> Result<(), GitError> {
    if format == "sha1" { Ok(()) } else { Err(GitError::UnsupportedObjectFormat) }
}

async fn version_0(
    answer: &mut Answer,
    first: Bytes,
    base: &Url,
    patterns: &RefPatterns,
) -> Result<Discovery, GitError> {
    let Some(cut) = first.iter().position(|byte| *byte == 0) else {
        return Err(GitError::Protocol("the advertisement names no capabilities".to_owned()));
    };
    let offered = String::from_utf8_lossy(packet::line(&first[cut + 1..])).into_owned();
    let has = |name| offered.split(' ').any(|offer| offer == name);
    let value = |name| offered.split(' ').find_map(|offer| offer.strip_prefix(name));
    if let Some(format) = value("object-format=") {
        check_format(format)?;
    }
    let mut listing = Listing::new(patterns);
    listing.set_head(value("symref=HEAD:"));
    listing.advertised(&first[..cut])?;
    loop {
        match answer.packet().await? {
            Some(Packet::Data(data)) => listing.advertised(packet::line(&data))?,
            Some(Packet::Flush) => break,
            _ => return Err(GitError::Protocol("the advertisement ends early".to_owned())),
        }
    }
    let protocol = Protocol::Zero {
        shallow: has("shallow"),
        side_band: has("side-band-64k"),
        ofs_delta: has("ofs-delta"),
        thin_pack: has("thin-pack"),
        no_progress: has("no-progress"),
        filter: has("filter") && (has("allow-any-sha1-in-want") || has("allow-reachable-sha1-in-want")),
    };
    let capabilities = Capabilities { base: base.clone(), protocol };
    Ok(Discovery { capabilities, listing: Some(listing.finish()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_moves_only_within_its_host_and_to_another_name() {
        let url = |text: &str| Url::parse(text).expect("valid");
        let old = url("https://h.example/o/old");
        for (moved, is_same) in [
            ("https://h.example/o/new.git", true),
            ("https://h.example:443/o/new", true),
            ("http://h.example/o/new", false),
            ("https://h.example:8443/o/new", false),
            ("https://g.example/o/new", false),
            ("nonsense", false),
        ] {
            assert_eq!(on_the_same_host(&old, moved).is_some(), is_same, "{moved}");
        }
        let new = Some("https://h.example/o/new".to_owned());
        assert_eq!(moved_to(&old, &url("https://h.example/o/new.git")), new);
        assert_eq!(moved_to(&old, &url("https://h.example/o/old.git")), None);
        assert_eq!(moved_to(&old, &old), None);
    }

    #[test]
    fn capabilities_are_remembered_with_the_form_of_the_address_in_little_memory() {
        let url = |text: &str| Url::parse(text).expect("valid");
        let (plain, suffixed) = (url("https://h.example/o/r"), url("https://h.example/o/r.git"));
        let protocol = Protocol::Two { unborn: true, object_format: true, filter: true };
        let cache = CapabilityCache::default();
        assert!(!cache.knows(&plain) && cache.get(&plain).is_none());
        for base in [&suffixed, &plain] {
            let capabilities = Capabilities { base: base.clone(), protocol };
            cache.put(&plain, &capabilities);
            assert!(cache.knows(&plain) && !cache.knows(&suffixed));
            assert_eq!(cache.get(&plain), Some(capabilities));
        }
        cache.no_filter(&plain);
        assert!(!cache.get(&plain).expect("known").protocol.can_filter());
        cache.forget(&plain);
        assert!(!cache.knows(&plain));
        let entry = size_of::<(Box<str>, Remembered)>();
        assert!(entry <= 48, "{entry} bytes for each repository");
    }

    #[test]
    fn the_other_form_of_an_address_has_or_lacks_its_suffix() {
        for (one, other) in [
            ("https://h.example/o/r", "https://h.example/o/r.git"),
            ("https://h.example/o/r.git", "https://h.example/o/r"),
            ("https://h.example/o/r/", "https://h.example/o/r.git"),
        ] {
            assert_eq!(other_form(&Url::parse(one).expect("valid")).as_str(), other);
        }
    }
}
