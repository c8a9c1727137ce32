//! Fetches objects: one request of protocol version 2 (or 0) with wants and haves, and the parsing of its
//! answer. See gitprotocol-v2(5) "fetch" and gitprotocol-pack(5).
//!
//! With haves a thin pack is asked for: only then does a host leave out what the trees of our haves share
//! with those of the wanted commits, when those have no parents on its shallow side.
//!
//! `deepen` is always sent together with the haves and the list of shallow commits. Without that list a host
//! believes that all ancestors of the haves are present, or sends the history of every merged branch.
//!
//! A filter leaves out objects that need not be fetched, if the host offers filters; objects that are wanted
//! by id are sent in spite of the filter.

use std::sync::Arc;

use bytes::Bytes;
use tidings_actors::{
    model::secret::Secret,
    ports::{Extent, FetchReport, GitError},
};
use tidings_entity::id::ObjectId;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    capabilities::{Capabilities, Protocol},
    client::{Answer, Body, Client, Question, Requester},
    packet::{self, Packet},
    receive::{Expected, Piece, ShallowChange, receive},
};
use crate::settings::GitSettings;
use crate::{failure, objects::limits::Cancel};

/// Pieces of a pack between network and disk; each has at most 64 KiB.
const PIECES_UNDER_WAY: usize = 16;

/// The content of a fetch request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) wants: Vec<ObjectId>,
    pub(crate) haves: Vec<ObjectId>,
    pub(crate) shallow: Vec<ObjectId>,
    pub(crate) depth: u32,
    /// Less than everything is asked for only where the host can leave something out.
    pub(crate) extent: Extent,
}

/// Why a fetch request brought no pack.
#[derive(Debug)]
pub(crate) enum FetchFailure {
    /// The host rejects our haves, or its pack does not fit them; a request without haves may succeed.
    Refused(GitError),
    /// The host rejects the filter; a weaker filter may succeed.
    Filter(GitError),
    /// An object of the pack, or its delta base, exceeds the size limit; in a request without haves the
    /// object may arrive undeltified.
    Object(GitError),
    /// Some of several wants are faulty; nothing was admitted.
    Wants(Vec<(ObjectId, GitError)>),
    /// A failure that a changed request cannot avoid.
    Git(GitError),
}

impl FetchFailure {
    /// The error that callers see.
    pub(crate) fn reason(self) -> GitError {
        match self {
            Self::Refused(error) | Self::Filter(error) | Self::Object(error) | Self::Git(error) => error,
            Self::Wants(odd) => odd.into_iter().next().map_or_else(
                || GitError::Protocol("the host sent other objects than those requested".to_owned()),
                |(_, error)| error,
            ),
        }
    }
}

impl From<GitError> for FetchFailure {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

/// Sends a request and takes the pack in.
pub(crate) async fn fetch(
    client: &Client,
    settings: &Arc<GitSettings>,
    capabilities: &Capabilities,
    credential: Option<&Secret>,
    request: &Request,
    expected: Expected,
) -> Result<FetchReport, FetchFailure> {
    let question = Question {
        base: &capabilities.base,
        requester: Requester { credential, apps: &expected.apps },
        body: Body::UploadPack(encode(capabilities.protocol, request)?),
        version_2: matches!(capabilities.protocol, Protocol::Two { .. }),
        takes_long: true,
        max_bytes: settings.fetch_max_bytes,
        deadline: settings.fetch_timeout,
    };
    let mut answer = client.ask(question).await?;
    answer.await_pack(settings.fetch_begin_timeout);
    let (pieces, intake) = mpsc::channel(PIECES_UNDER_WAY);
    let cancel = Cancel::default();
    let _cancel_on_drop = cancel.on_drop();
    let settings = Arc::clone(settings);
    let receiving = spawn_blocking(move || receive(&expected, &settings, intake, &cancel));
    let told = tell(&mut answer, request, &pieces).await;
    drop(pieces);
    // The host has sent everything; the remaining work is local.
    let bytes = answer.received();
    drop(answer);
    let received = receiving.await.map_err(|_| GitError::Storage("taking a pack in panicked".to_owned()))?;
    told?;
    let objects = received.map_err(|failure| match failure {
        // A delta whose base is missing looks like this.
        FetchFailure::Git(error @ GitError::Protocol(_)) => FetchFailure::Refused(error),
        failure => failure,
    })?;
    Ok(FetchReport { bytes, objects })
}

/// Passes an answer on piece by piece. `Ok` also if the receiver hung up: the receiver has the reason.
async fn tell(
    answer: &mut Answer,
    request: &Request,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), FetchFailure> {
    let mut shallow = ShallowChange::default();
    let mut in_pack = false;
    loop {
        let data = match answer.packet().await? {
            Some(Packet::Data(data)) => data,
            Some(Packet::Flush) if in_pack => break,
            // In version 0 a flush ends the list of shallow commits, in 2 a mark ends a section.
            Some(_) => {
                answer.discount(packet::HEAD_BYTES);
                continue;
            }
            None => return Err(GitError::Unreachable("the answer was cut off".to_owned()).into()),
        };
        match band(&data, &mut in_pack, &request.wants, &mut shallow)? {
            Some(piece) => {
                answer.pack_came();
                if pieces.send(Piece::Pack(piece)).await.is_err() {
                    return Ok(());
                }
            }
            None => answer.discount(data.len() + packet::HEAD_BYTES),
        }
    }
    // A receiver that hung up has its own reason, which is the one to report.
    drop(pieces.send(Piece::End(shallow)).await);
    Ok(())
}

/// Parses one packet: a piece of the pack, if it contains one.
pub(crate) fn band(
    data: &Bytes,
    in_pack: &mut bool,
    wants: &[ObjectId],
    shallow: &mut ShallowChange,
) -> Result<Option<Bytes>, FetchFailure> {
    match data.first() {
        Some(1) => {
            *in_pack = true;
            return Ok((data.len() > 1).then(|| data.slice(1..)));
        }
        Some(2) | None => {}
        Some(3) => return Err(refusal(&data[1..], wants)),
        Some(_) if *in_pack => {
            return Err(GitError::Protocol("a pack with an unknown band".to_owned()).into());
        }
        Some(_) => line(packet::line(data), wants, shallow)?,
    }
    Ok(None)
}

/// A line before the pack.
fn line(line: &[u8], wants: &[ObjectId], shallow: &mut ShallowChange) -> Result<(), FetchFailure> {
    if let Some(text) = line.strip_prefix(b"ERR ") {
        return Err(refusal(text, wants));
    }
    let text = std::str::from_utf8(line).map_err(|_| unknown(line))?;
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "shallow" => shallow.add(rest.parse().map_err(|_| unknown(line))?)?,
        "unshallow" => shallow.remove(rest.parse().map_err(|_| unknown(line))?)?,
        "shallow-info" | "packfile" | "acknowledgments" | "wanted-refs" | "ACK" | "NAK" | "ready" => {}
        _ => return Err(unknown(line).into()),
    }
    Ok(())
}

fn unknown(line: &[u8]) -> GitError {
    GitError::Protocol(format!("an unknown line: {}", failure::shown(line)))
}

/// The meaning of a refusal in words.
fn refusal(text: &[u8], wants: &[ObjectId]) -> FetchFailure {
    let text = failure::shown(text);
    let lower = text.to_lowercase();
    let definitive = ["not our ref", "not valid", "does not exist", "no such object"];
    if definitive.iter().any(|words| lower.contains(words)) {
        let named = wants.iter().find(|want| lower.contains(&want.to_string()));
        let only = wants.first().filter(|_| wants.len() == 1);
        if let Some(want) = named.or(only) {
            return FetchFailure::Git(GitError::Unobtainable(*want));
        }
    }
    let error = GitError::Protocol(format!("the host says: {text}"));
    if lower.contains("filter") { FetchFailure::Filter(error) } else { FetchFailure::Refused(error) }
}

/// The filter of a request. See the `--filter` option of git-rev-list(1).
fn filter(extent: Extent) -> Option<&'static str> {
    match extent {
        Extent::Commit => Some("tree:0"),
        Extent::Trees => Some("blob:none"),
        Extent::Whole => None,
    }
}

fn encode(protocol: Protocol, request: &Request) -> Result<Vec<u8>, GitError> {
    match protocol {
        Protocol::Two { object_format, .. } => Ok(encode_2(object_format, request)),
        Protocol::Zero { shallow: true, side_band: true, ofs_delta, no_progress, thin_pack, .. } => {
            let thin_pack = thin_pack && !request.haves.is_empty();
            let offered = [
                (ofs_delta, " ofs-delta"),
                (no_progress, " no-progress"),
                (thin_pack, " thin-pack"),
                (request.extent < Extent::Whole, " filter"),
            ];
            Ok(encode_0(&offered, request))
        }
        Protocol::Zero { .. } => {
            Err(GitError::Protocol("the host offers no shallow fetches, or no side-band-64k".to_owned()))
        }
    }
}

fn encode_2(object_format: bool, request: &Request) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    packet::write(&mut body, "command=fetch");
    if object_format {
        packet::write(&mut body, "object-format=sha1");
    }
    packet::write_delimiter(&mut body);
    packet::write(&mut body, "ofs-delta");
    packet::write(&mut body, "no-progress");
    if !request.haves.is_empty() {
        packet::write(&mut body, "thin-pack");
    }
    for want in &request.wants {
        packet::write(&mut body, &format!("want {want}"));
    }
    for shallow in &request.shallow {
        packet::write(&mut body, &format!("shallow {shallow}"));
    }
    packet::write(&mut body, &format!("deepen {}", request.depth));
    if let Some(filter) = filter(request.extent) {
        packet::write(&mut body, &format!("filter {filter}"));
    }
    for have in &request.haves {
        packet::write(&mut body, &format!("have {have}"));
    }
    packet::write(&mut body, "done");
    packet::write_flush(&mut body);
    body
}

fn encode_0(offered: &[(bool, &str)], request: &Request) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    let mut asked = " side-band-64k".to_owned();
    for (offered, word) in offered {
        if *offered {
            asked.push_str(word);
        }
    }
    for want in &request.wants {
        packet::write(&mut body, &format!("want {want}{}\n", std::mem::take(&mut asked)));
    }
    for shallow in &request.shallow {
        packet::write(&mut body, &format!("shallow {shallow}\n"));
    }
    packet::write(&mut body, &format!("deepen {}\n", request.depth));
    if let Some(filter) = filter(request.extent) {
        packet::write(&mut body, &format!("filter {filter}\n"));
    }
    packet::write_flush(&mut body);
    for have in &request.haves {
        packet::write(&mut body, &format!("have {have}\n"));
    }
    packet::write(&mut body, "done\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::new([byte; 20])
    }

    #[test]
    fn a_refusal_that_names_an_object_is_definitive() {
        let text = format!("upload-pack: not our ref {}", id(2));
        let wants = [id(1), id(2)];
        assert!(matches!(
            refusal(text.as_bytes(), &wants),
            FetchFailure::Git(GitError::Unobtainable(which)) if which == id(2)
        ));
        assert!(matches!(refusal(b"out of memory", &wants), FetchFailure::Refused(_)));
        assert!(matches!(refusal(b"not our ref", &wants), FetchFailure::Refused(_)));
        assert!(matches!(refusal(b"filter 'tree' not supported", &wants), FetchFailure::Filter(_)));
    }

    #[test]
    fn a_request_says_what_is_here_and_how_deep() {
        let (wants, haves, shallow) = (vec![id(1)], vec![id(2)], vec![id(3)]);
        let mut request = Request { wants, haves, shallow, depth: 1, extent: Extent::Whole };
        let text = String::from_utf8(encode_2(false, &request)).expect("text");
        let expected = format!(
            "0011command=fetch0001000dofs-delta000fno-progress000dthin-pack0031want {}0034shallow \
             {}000cdeepen 10031have {}0008done0000",
            id(1),
            id(3),
            id(2)
        );
        assert_eq!(text, expected);
        let text = String::from_utf8(encode_0(&[(true, " ofs-delta"), (false, " no-progress")], &request))
            .expect("text");
        assert!(text.starts_with(&format!("004awant {} side-band-64k ofs-delta\n", id(1))), "{text}");
        assert!(text.ends_with("0009done\n") && !text.contains("filter"), "{text}");

        for (extent, filter) in
            [(Extent::Commit, "0011filter tree:0"), (Extent::Trees, "0014filter blob:none")]
        {
            request.extent = extent;
            let text = String::from_utf8(encode_2(false, &request)).expect("text");
            assert!(text.contains(&format!("000cdeepen 1{filter}0031have")), "{text}");
        }
        let text = String::from_utf8(encode_0(&[(true, " filter")], &request)).expect("text");
        assert!(text.contains(" filter\n") && text.contains("0015filter blob:none\n0000"), "{text}");
    }
}
