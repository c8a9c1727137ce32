//! Listing refs: the `ls-refs` command of protocol version 2, and the selection of wanted refs from an answer
//! of any version. Hosts treat `ref-prefix` as a hint and a prefix matches more than one name, so every
//! answer is filtered by whole name. See gitprotocol-v2(5), "ls-refs".

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU64,
};

use bytes::Bytes;
use tidings_actors::{
    model::selector::is_ref_name,
    ports::{GitError, Ref, RefListing, RefPatterns},
};
use tidings_entity::id::ObjectId;

use super::{
    Host,
    capabilities::{Capabilities, Protocol},
    client::{Answer, Body, Question, Requester},
    packet::{self, Packet},
};
use crate::failure;

/// The prefixes of branches and tags: a repository with any such ref exists.
const EVERYTHING: [&str; 2] = ["refs/heads/", "refs/tags/"];
/// Longest admitted ref name in bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// Longest answer that is hashed before its lines are read: some 15,000 refs. The hash needs the whole answer
/// in memory; of a longer answer each line is read as it comes.
const HASHED_BYTES_MAX: usize = 1 << 20;

/// Lists the refs of a host that speaks version 2, with one request. `None`: the bytes of the answer are
/// those of the answer that `last` is the digest of, and none of its lines was read. Where no ref matches, a
/// second request asks for any branch or tag: only other refs prove that the repository exists.
pub(crate) async fn list(
    host: &Host,
    capabilities: &Capabilities,
    requester: Requester<'_>,
    patterns: &RefPatterns,
    last: Option<NonZeroU64>,
) -> Result<Option<RefListing>, GitError> {
    let Protocol::Two { unborn, object_format, .. } = capabilities.protocol else {
        return Err(GitError::Protocol("the host changed its protocol".to_owned()));
    };
    let (client, settings) = (&host.client, &host.settings);
    let question = |patterns: &RefPatterns| Question {
        base: &capabilities.base,
        requester,
        body: Body::UploadPack(command(unborn, object_format, patterns)),
        version_2: true,
        max_bytes: settings.listing_max_bytes,
        takes_long: false,
        deadline: settings.poll_timeout,
    };
    let mut answer = client.ask(question(patterns)).await?;
    let hashed = answer.section(HASHED_BYTES_MAX).await?.map(|answer| {
        let digest = host.digest(&capabilities.base, answer);
        (digest, answer.len())
    });
    if let Some((Some(digest), length)) = hashed
        && last == Some(digest)
    {
        answer.skip(length);
        answer.end().await;
        return Ok(None);
    }
    let mut listing = Listing::new(patterns);
    while let Some(line) = line(&mut answer).await? {
        listing.listed(packet::line(&line))?;
    }
    answer.end().await;
    // A second answer belongs to a listing without refs: the first does not say everything.
    let digest = hashed.and_then(|(digest, _)| digest).filter(|_| listing.has_refs);
    if !listing.has_refs {
        let anything = EVERYTHING.map(str::to_owned).to_vec();
        let mut answer = client.ask(question(&anything)).await?;
        let mut others = Listing::new(&RefPatterns::new());
        // The first ref is proof enough; the rest is not read.
        while let Some(line) = line(&mut answer).await?
            && !others.has_refs
        {
            others.listed(packet::line(&line))?;
        }
        listing.has_refs = others.has_refs;
    }
    Ok(Some(RefListing { answer: digest, ..listing.finish() }))
}

/// The next line of a listing; `None` at its end.
async fn line(answer: &mut Answer) -> Result<Option<Bytes>, GitError> {
    match answer.packet().await? {
        Some(Packet::Data(data)) => Ok(Some(data)),
        Some(Packet::Flush) => Ok(None),
        _ => Err(GitError::Protocol("the listing of refs ends early".to_owned())),
    }
}

fn command(unborn: bool, object_format: bool, patterns: &RefPatterns) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    packet::write(&mut body, "command=ls-refs");
    if object_format {
        packet::write(&mut body, "object-format=sha1");
    }
    packet::write_delimiter(&mut body);
    packet::write(&mut body, "peel");
    packet::write(&mut body, "symrefs");
    if unborn {
        packet::write(&mut body, "unborn");
    }
    packet::write(&mut body, "ref-prefix HEAD");
    for pattern in patterns.iter().filter(|pattern| pattern.len() <= NAME_BYTES_MAX) {
        packet::write(&mut body, &format!("ref-prefix {pattern}"));
    }
    packet::write_flush(&mut body);
    body
}

/// Collects the wanted refs of an answer; the others cost no memory.
pub(crate) struct Listing {
    names: HashSet<String>,
    prefixes: Vec<String>,
    refs: BTreeMap<String, ObjectId>,
    head: Option<String>,
    head_commit: Option<ObjectId>,
    has_refs: bool,
}

impl Listing {
    pub(crate) fn new(patterns: &RefPatterns) -> Self {
        let (prefixes, names): (Vec<_>, Vec<_>) =
            patterns.iter().cloned().partition(|pattern| pattern.ends_with('/'));
        Self {
            names: names.into_iter().collect(),
            prefixes,
            refs: BTreeMap::new(),
            head: None,
            head_commit: None,
            has_refs: false,
        }
    }

    /// Sets the ref that HEAD names, for answers that report it outside of their lines.
    pub(crate) fn set_head(&mut self, target: Option<&str>) {
        self.head = target.filter(|target| is_sound(target)).map(str::to_owned);
    }

    /// One line of `ls-refs`: `<id or unborn> <name>[ <attribute>]...`.
    pub(crate) fn listed(&mut self, line: &[u8]) -> Result<(), GitError> {
        if let Some(text) = line.strip_prefix(b"ERR ") {
            return Err(GitError::Protocol(format!("the host says: {}", failure::shown(text))));
        }
        // Names that are not UTF-8 are left out; no watch can name them.
        let Ok(line) = std::str::from_utf8(line) else {
            self.passed_by();
            return Ok(());
        };
        let mut parts = line.split(' ');
        let (Some(id), Some(name)) = (parts.next(), parts.next()) else { return Err(not_a_ref(line)) };
        let (mut commit, mut target) = (None, None);
        for attribute in parts {
            if let Some(peeled) = attribute.strip_prefix("peeled:") {
                commit = Some(object_id(peeled)?);
            } else if let Some(named) = attribute.strip_prefix("symref-target:") {
                target = Some(named);
            }
        }
        if name == "HEAD" {
            self.set_head(target);
        }
        if id == "unborn" {
            return Ok(());
        }
        let id = object_id(id)?;
        self.found(name, commit.unwrap_or(id));
        Ok(())
    }

    /// One line of an advertisement: `<id> <name>`; the peeled commit of a tag follows as
    /// `<id> <name>^{}`.
    pub(crate) fn advertised(&mut self, line: &[u8]) -> Result<(), GitError> {
        if let Some(text) = line.strip_prefix(b"ERR ") {
            return Err(GitError::Protocol(format!("the host says: {}", failure::shown(text))));
        }
        if line.starts_with(b"shallow ") {
            return Ok(());
        }
        let Ok(line) = std::str::from_utf8(line) else {
            self.passed_by();
            return Ok(());
        };
        let Some((id, name)) = line.split_once(' ') else { return Err(not_a_ref(line)) };
        let id = object_id(id)?;
        if name == "capabilities^{}" {
            return Ok(());
        }
        self.found(name.strip_suffix("^{}").unwrap_or(name), id);
        Ok(())
    }

    /// Whether a ref of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.contains(name) || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Records that the listing had a ref that no pattern asked for.
    pub(crate) fn passed_by(&mut self) {
        self.has_refs = true;
    }

    /// Adds a ref to the listing.
    pub(crate) fn found(&mut self, name: &str, commit: ObjectId) {
        self.has_refs = true;
        if name == "HEAD" {
            self.head_commit = Some(commit);
        } else if self.wants(name) && is_sound(name) {
            self.refs.insert(name.to_owned(), commit);
        }
    }

    /// The listing. The branch that HEAD names is among its refs, even if it was not asked for.
    pub(crate) fn finish(mut self) -> RefListing {
        if let (Some(head), Some(commit)) = (&self.head, self.head_commit) {
            self.refs.entry(head.clone()).or_insert(commit);
        }
        let refs = self.refs.into_iter().map(|(name, commit)| Ref { name, commit }).collect();
        RefListing { refs, head: self.head, has_refs: self.has_refs, ..RefListing::default() }
    }
}

/// Whether a ref can have this name, and the name is short enough to be stored. A host may list any text.
fn is_sound(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && is_ref_name(name)
}

fn object_id(text: &str) -> Result<ObjectId, GitError> {
    if text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(GitError::UnsupportedObjectFormat);
    }
    text.parse().map_err(|_| not_a_ref(text))
}

fn not_a_ref(line: &str) -> GitError {
    GitError::Protocol(format!("not a ref: {}", failure::shown(line.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: &str) -> String {
        digit.repeat(40)
    }

    #[test]
    fn a_poll_of_one_branch_is_a_few_bytes() {
        let body = command(true, true, &vec!["refs/heads/main".to_owned()]);
        let expected = "0013command=ls-refs0016object-format=sha100010008peel000bsymrefs000aunborn\
                        0013ref-prefix HEAD001eref-prefix refs/heads/main0000";
        assert_eq!(String::from_utf8(body).expect("text"), expected);
    }

    #[test]
    fn only_what_was_asked_for_is_kept_and_tags_are_peeled() {
        let patterns = vec!["refs/heads/main".to_owned(), "refs/tags/".to_owned()];
        let mut listing = Listing::new(&patterns);
        for line in [
            format!("{} HEAD symref-target:refs/heads/trunk", id("1")),
            format!("{} refs/heads/main", id("2")),
            format!("{} refs/heads/main-2", id("3")),
            format!("{} refs/tags/v1 peeled:{}", id("4"), id("5")),
            format!("{} refs/tags/a..b", id("6")),
        ] {
            listing.listed(line.as_bytes()).expect("valid");
        }
        let listing = listing.finish();
        let refs: Vec<_> =
            listing.refs.iter().map(|one| (one.name.as_str(), one.commit.to_string())).collect();
        assert_eq!(
            refs,
            [("refs/heads/main", id("2")), ("refs/heads/trunk", id("1")), ("refs/tags/v1", id("5"))]
        );
        assert_eq!(listing.head.as_deref(), Some("refs/heads/trunk"));
    }

    #[test]
    fn names_that_no_ref_can_have_are_left_out() {
        let kept = ["refs/heads/a", "refs/heads/a.b", "refs/heads/-a", "refs/heads/a@b", "refs/heads/@"];
        let refused = [
            "refs/heads/",
            "refs/heads//a",
            "refs/heads/b//a",
            "refs/heads/a/",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/.a",
            "refs/heads/b/.a",
            "refs/heads/a..b",
            "refs/heads/a.",
            "refs/heads/a@{b",
            "refs/heads/a~b",
            "refs/heads/a^b",
            "refs/heads/a:b",
            "refs/heads/a?b",
            "refs/heads/a*b",
            "refs/heads/a[b",
            "refs/heads/a\\b",
            "refs/heads/a\tb",
            "refs/heads/a\u{7f}b",
        ];
        let mut listing = Listing::new(&vec!["refs/heads/".to_owned()]);
        for name in refused.iter().chain(&kept).copied() {
            listing.listed(format!("{} {name}", id("1")).as_bytes()).expect("valid");
            listing.set_head(Some(name));
            assert_eq!(listing.head.is_some(), kept.contains(&name), "{name} as the target of HEAD");
        }
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(listing.refs.keys().collect::<Vec<_>>(), kept);
    }

    #[test]
    fn an_unborn_head_is_a_head_but_no_ref() {
        let mut listing = Listing::new(&vec![]);
        listing.listed(b"unborn HEAD symref-target:refs/heads/main").expect("valid");
        let listing = listing.finish();
        assert_eq!((listing.head.as_deref(), listing.has_refs), (Some("refs/heads/main"), false));
    }

    #[test]
    fn an_advertisement_peels_with_a_line_of_its_own() {
        let mut listing = Listing::new(&vec!["refs/tags/v1".to_owned()]);
        for line in [format!("{} refs/tags/v1", id("4")), format!("{} refs/tags/v1^{{}}", id("5"))] {
            listing.advertised(line.as_bytes()).expect("valid");
        }
        assert_eq!(listing.finish().refs[0].commit.to_string(), id("5"));
    }

    #[test]
    fn bytes_that_are_no_text_are_skipped_and_nonsense_is_an_error() {
        let mut listing = Listing::new(&vec![]);
        listing.listed(b"1111111111111111111111111111111111111111 refs/heads/\xff").expect("skipped");
        assert!(matches!(listing.listed(b"<html>"), Err(GitError::Protocol(_))));
        let long = format!("{} HEAD", "a".repeat(64));
        assert!(matches!(listing.listed(long.as_bytes()), Err(GitError::UnsupportedObjectFormat)));
    }
}
