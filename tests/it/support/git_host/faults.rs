//! The misdeeds of the Git host: what it says instead of asking Git, and what becomes of its answers.

use std::{sync::Mutex, time::Duration};

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::{Answer, Body, is_fetch};

/// How the host misbehaves, at requests that fetch or list (POST) unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Never answers, not even the discovery.
    Hang,
    /// Sends the first half of the answer, then closes the connection.
    CutInHalf,
    /// Sends the first half of the answer, then nothing, for ever.
    Stall,
    /// Answers this many bytes a second.
    Drip(usize),
    /// Answers fetches with a word of progress a second, and never with a pack.
    ProgressAlone,
    /// Answers fetches with the beginning of a pack, and then with plenty of progress alone.
    ProgressInPack,
    /// Answers HTML with status 200, as Git.
    Html,
    /// Answers a web page with its own content type.
    WebPage,
    /// Answers with this status and this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// Answers with this status and these headers.
    Headers(u16, &'static [(&'static str, &'static str)]),
    /// Lists this many bytes of refs, some of whose names are no text.
    FloodOfRefs(usize),
    /// Answers that the repository has moved there.
    Moved(String),
    /// Refuses in the words of the protocol, repeating the credential in clear and as it came.
    Echo,
    /// Says that the pack has this many objects.
    ObjectCount(u32),
    /// Refuses, in the words of the protocol, a client that says what it has.
    RefusesHaves,
    /// Leaves contents out of a fetch where it is asked to, and refuses each of them by its id.
    NoBlobsById,
    /// Answers a fetch with this pack.
    Pack(Bytes),
    /// Flips one bit in the middle of the answer.
    FlippedBit,
    /// Answers honestly, and so late.
    Late(Duration),
    /// Sends this many 256ths of the answer, then closes the connection.
    CutAt(u8),
    /// Answers a fetch with these bytes, as Git.
    SaysToFetch(Bytes),
    /// Answers everything with these bytes, as Git, under these headers.
    Says(&'static [(&'static str, &'static str)], Bytes),
    /// Lists the refs as they were some pushes ago.
    Stale,
}

/// What a fault says instead of asking Git.
pub(super) fn said(fault: &Fault, body: &Bytes, authorization: Option<&str>) -> Option<Answer> {
    let result = |bytes: Bytes| Some(in_protocol(bytes));
    let plain =
        |status: u16, text: &'static [u8]| Some((status, "text/plain".to_owned(), Bytes::from_static(text)));
    match fault {
        Fault::Status(status, _) | Fault::Headers(status, _) => plain(*status, b"no"),
        Fault::FloodOfRefs(bytes) => result(flood_of_refs(*bytes)),
        Fault::Pack(pack) if is_fetch(body) => result(in_band(pack)),
        Fault::SaysToFetch(bytes) if is_fetch(body) => result(bytes.clone()),
        Fault::Says(_, bytes) => result(bytes.clone()),
        Fault::ProgressAlone => result(progress_alone()),
        Fault::ProgressInPack => result(progress_in_pack()),
        Fault::Echo => result(echo(authorization)),
        Fault::Moved(_) => plain(302, b""),
        Fault::RefusesHaves if body.windows(5).any(|window| window == b"have ") => {
            result(Bytes::from_static(b"0026ERR upload-pack: haves are unwelcome"))
        }
        Fault::WebPage => Some((200, "text/html".to_owned(), Bytes::from_static(b"<html></html>"))),
        _ => None,
    }
}

/// Bytes as Git sends them.
pub(super) fn in_protocol(bytes: Bytes) -> Answer {
    (200, "application/x-git-upload-pack-result".to_owned(), bytes)
}

/// A refusal that holds what it should not.
fn echo(authorization: Option<&str>) -> Bytes {
    let shown = authorization.unwrap_or_default();
    let pair = shown.strip_prefix("Basic ").and_then(|pair| BASE64.decode(pair.as_bytes()).ok());
    let pair = String::from_utf8(pair.unwrap_or_default()).expect("text");
    let words = format!("ERR {pair} or {shown}\n");
    format!("{:04x}{words}", words.len() + 4).into()
}

/// Bytes of one word of progress.
const PROGRESS_BYTES: usize = 6;

fn progress_alone() -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n"[..]);
    (0..3_600).for_each(|_| answer.extend_from_slice(b"0006\x02."));
    answer.freeze()
}

/// The header of a pack, and then words without end.
fn progress_in_pack() -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n0011\x01PACK\0\0\0\x02\0\0\0\x09"[..]);
    for _ in 0..1_000 {
        answer.extend_from_slice(b"03ed\x02");
        answer.extend_from_slice(&[b'.'; 1_000]);
    }
    answer.freeze()
}

/// An answer of version 2 that brings a pack.
fn in_band(pack: &[u8]) -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n"[..]);
    for piece in pack.chunks(60_000) {
        answer.extend_from_slice(format!("{:04x}\u{1}", piece.len() + 5).as_bytes());
        answer.extend_from_slice(piece);
    }
    answer.extend_from_slice(b"0000");
    answer.freeze()
}

/// The answer as it is sent.
pub(super) fn misbehave(fault: Option<Fault>, bytes: Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let cut = |beginning: Bytes| {
        let frames = [Ok(Frame::data(beginning)), Err(std::io::Error::other("cut"))];
        StreamBody::new(stream::iter(frames)).boxed()
    };
    match fault {
        Some(Fault::CutInHalf) => cut(half),
        Some(Fault::CutAt(place)) => cut(bytes.slice(..bytes.len() * usize::from(place) / 256)),
        Some(Fault::Stall) => dripping(half, usize::MAX, true),
        Some(Fault::Drip(rate)) => dripping(bytes, rate, false),
        Some(Fault::ProgressAlone) => dripping(bytes, PROGRESS_BYTES, false),
        Some(Fault::ProgressInPack) => dripping(bytes, 20_000, false),
        Some(Fault::Html) => whole(Bytes::from_static(b"<html><body>Please log in</body></html>")),
        Some(Fault::ObjectCount(count)) => {
            let mut bytes = BytesMut::from(&bytes[..]);
            if let Some(at) = bytes.windows(4).position(|window| window == b"PACK") {
                bytes[at + 8..at + 12].copy_from_slice(&count.to_be_bytes());
            }
            whole(bytes.freeze())
        }
        Some(Fault::FlippedBit) => {
            let mut bytes = BytesMut::from(&bytes[..]);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            whole(bytes.freeze())
        }
        _ => whole(bytes),
    }
}

/// A listing that does not want to end.
fn flood_of_refs(bytes: usize) -> Bytes {
    let mut listing = BytesMut::with_capacity(bytes + 1_024);
    let mut number = 0_u64;
    while listing.len() < bytes {
        let mut line = format!("{:040x} refs/heads/{number:0200}", number + 1).into_bytes();
        if number.is_multiple_of(2) {
            line.extend_from_slice(b"-\xff\xfe");
        }
        line.push(b'\n');
        listing.extend_from_slice(format!("{:04x}", line.len() + 4).as_bytes());
        listing.extend_from_slice(&line);
        number += 1;
    }
    listing.extend_from_slice(b"0000");
    listing.freeze()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// This many bytes a second, and perhaps silence at the end.
fn dripping(bytes: Bytes, rate: usize, never_ends: bool) -> Body {
    let frames = stream::unfold((bytes, 0_u64), move |(mut rest, tick)| async move {
        if rest.is_empty() && never_ends {
            std::future::pending::<()>().await;
        }
        if rest.is_empty() {
            return None;
        }
        if tick > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let piece = rest.split_to(rate.div_ceil(10).min(rest.len()));
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), (rest, tick + 1)))
    });
    // A body must be Sync to be boxed; the mutex makes it so.
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(frames)))))
}

struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().expect("no panic").as_mut().poll_next(context)
    }
}
