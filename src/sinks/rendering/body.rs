//! Bodies of changes: compact JSON whose bytes never change over retries.
//!
//! The keys that Docora's clients know come first and in their order; further keys follow inside `file`, and
//! `event` at the end. The JSON equals the output of JavaScript's `JSON.stringify` of the parsed body, so
//! receivers that sign a re-serialised body get the same bytes: only `"`, `\` and control characters are
//! escaped, non-ASCII text is raw.
//!
//! Content that is valid UTF-8 without NUL is sent as text, any other as base64; `sha` is the hash of the
//! original bytes. Base64 of files over `delivery.chunk_threshold` is cut into chunks.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tidings_actors::{
    model::round::{DeliveryId, Round},
    ports::{DeliveryOrder, LaneFacts, ParcelBody},
    time::Timestamp,
};
use tidings_entity::{
    id::{CursorId, ObjectId, Sha256Hash},
    kind::{Operation, PayloadFormat},
};
use time::OffsetDateTime;

use super::cloud_event;

/// Binary files with more bytes than this go in chunks, where the settings say nothing else.
pub const CHUNK_THRESHOLD: usize = 1_048_576;
/// The most bytes that a byte of content becomes in a body: a control character is written as `\u001f`.
pub(crate) const ESCAPED_BYTES_MAX: usize = 6;
/// Characters of base64 text in one chunk; a multiple of four, so that each decodes alone.
pub const CHUNK_SIZE: usize = 524_288;
/// Bytes of the file in one chunk.
pub const CHUNK_BYTES: usize = CHUNK_SIZE / 4 * 3;

/// The content of the file as a body shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewContent {
    /// Nothing: a delete, or a view without content.
    Unseen,
    /// The whole content of the file.
    Inline {
        /// SHA-256 of the content.
        sha: Sha256Hash,
        /// The bytes of the content.
        bytes: Bytes,
    },
    /// Nothing, because it is larger than the view admits.
    TooLarge {
        /// The size of the content in bytes.
        size: u64,
    },
}

/// The data that was read to render a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The content that the body shows.
    pub new: NewContent,
    /// SHA-256 of the old content, where the body shows it.
    pub old_sha: Option<Sha256Hash>,
}

/// The typical size of a body without its content, in bytes.
const BESIDE_CONTENT: usize = 1 << 10;
/// The buffer of a body with a content of at least this many bytes (1 MiB) has its full size from the
/// beginning: a buffer that grows is in memory twice while it is copied.
const EXACT_FROM: usize = 1 << 20;
/// More than a body without its content ever has, in bytes.
const BESIDE_CONTENT_MAX: usize = 64 << 10;

#[derive(Serialize)]
struct Body<'a> {
    repository: &'a RawValue,
    file: File<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_sha: Option<Sha256Hash>,
    commit_sha: ObjectId,
    timestamp: &'a str,
    event: Event<'a>,
}

#[derive(Default, Serialize)]
struct File<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha: Option<Sha256Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<&'static str>,
    // In a chunked file, the chunk object is inserted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<ObjectId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renamed_from: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renamed_from_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_mode: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs: Option<LfsPointer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_omitted: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_url: Option<String>,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    r#type: &'static str,
    cursor: &'a CursorId,
    branch: &'a str,
    previous_commit_sha: Option<ObjectId>,
    round: i64,
    position: u64,
    total: u64,
    commit: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "is_false")]
    history_rewritten: bool,
    #[serde(skip_serializing_if = "is_false")]
    skipped_commits: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_of: Option<&'a str>,
}

#[derive(Serialize)]
struct Commit<'a> {
    author: &'a str,
    time: String,
    subject: &'a str,
}

/// The target of a Git LFS pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LfsPointer<'a> {
    /// SHA-256 of the object, 64 lower-case hexadecimal digits.
    oid: &'a str,
    /// The size of the content in bytes.
    size: u64,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    index: usize,
    total: usize,
    // Written after the keys that Docora's clients know.
    offset: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The parts that all bodies of a lane share, rendered once.
pub struct Shared {
    pub(super) repository: Box<RawValue>,
    pub(super) began_at: String,
    pub(super) commit: Option<Box<RawValue>>,
}

impl Shared {
    /// Renders the shared parts for this lane.
    ///
    /// # Panics
    /// Never: plain data always serialises.
    #[must_use]
    pub fn of(lane: &LaneFacts) -> Self {
        Self {
            repository: to_raw_value(&lane.repository).expect("facts are plain data"),
            began_at: iso(lane.round.began_at),
            commit: lane.commit.as_deref().map(|commit| {
                let time = iso(Timestamp(commit.time.saturating_mul(1000)));
                let commit = Commit { author: &commit.author, time, subject: &commit.subject };
                to_raw_value(&commit).expect("facts are plain data")
            }),
        }
    }
}

/// Renders the body of a change; `shared` are the parts that its lane's bodies share. A binary file of more
/// than `chunk_threshold` bytes is sent in chunks.
///
/// # Panics
/// Never: plain data always serialises.
#[must_use]
pub fn render(
    order: &DeliveryOrder,
    shared: &Shared,
    material: &Material,
    chunk_threshold: usize,
) -> ParcelBody {
    let mut file = file_without_content(order);
    let mut chunked = None;
    match &material.new {
        NewContent::Unseen => {}
        NewContent::TooLarge { size } => {
            (file.size, file.content_omitted) = (Some(*size), Some("too_large"));
            let (watch, blob) = (&order.lane.repository.repository_id, file.blob);
            file.content_url = blob.map(|blob| format!("/api/repositories/{watch}/blobs/{blob}"));
        }
        NewContent::Inline { sha, bytes } => {
            (file.sha, file.size) = (Some(*sha), Some(bytes.len() as u64));
            match as_text(bytes) {
                Some(text) => {
                    file.content = Some(Cow::Borrowed(text));
                    file.lfs = lfs_pointer(text);
                }
                None => {
                    file.content_encoding = Some("base64");
                    let encoded = BASE64_STANDARD.encode(bytes);
                    if bytes.len() > chunk_threshold {
                        file.content = Some(Cow::Borrowed(""));
                        chunked = Some(Bytes::from(encoded));
                    } else {
                        file.content = Some(Cow::Owned(encoded));
                    }
                }
            }
        }
    }
    let deletes = order.change.operation == Operation::Delete;
    if deletes {
        file.sha = material.old_sha;
    }
    let target = order.lane.round.spec.target.as_ref().map_or(ObjectId::new([0; 20]), |end| end.commit);
    let body = Body {
        repository: &shared.repository,
        file,
        previous_sha: material.old_sha.filter(|_| !deletes),
        commit_sha: target,
        timestamp: &shared.began_at,
        event: event(order, shared),
    };
    let mut json = Vec::with_capacity(buffer_bytes(body.file.content.as_deref().unwrap_or_default()));
    match order.lane.round.format {
        PayloadFormat::Docora => serde_json::to_writer(&mut json, &body).expect("a body is plain data"),
        PayloadFormat::Cloudevents => cloud_event::of_change(&mut json, order, body.event.r#type, &body),
    }
    match chunked {
        None => ParcelBody::Whole(json.into()),
        Some(content) => split(&json.into(), content),
    }
}

/// The JSON of one chunk of a chunked file. `index` counts from 0.
///
/// # Panics
/// Never: plain data always serialises.
#[must_use]
pub fn chunk_body(before: &[u8], slice: &[u8], after: &[u8], id: &str, index: usize, total: usize) -> Bytes {
    let chunk = Chunk { id, index, total, offset: index * CHUNK_BYTES };
    let chunk = serde_json::to_string(&chunk).expect("a chunk is plain data");
    let middle = [br#"","content_encoding":"base64","chunk":"#, chunk.as_bytes()].concat();
    [before, slice, &middle, after].concat().into()
}

/// The JSON between the base64 text of a chunked file and the rest, where the file goes as one body.
pub const END_OF_BASE64: &[u8] = br#"","content_encoding":"base64""#;

/// The JSON of a chunked file as one body, for sinks that need no chunks.
#[must_use]
pub fn unchunked(before: &[u8], content: &[u8], after: &[u8]) -> Bytes {
    [before, content, END_OF_BASE64, after].concat().into()
}

/// The pieces of a chunked file's base64 text.
pub fn chunks(content: &Bytes) -> impl ExactSizeIterator<Item = &[u8]> {
    content.chunks(CHUNK_SIZE)
}

/// Cuts a body with empty content in two, around the place of content, encoding and chunk.
fn split(body: &Bytes, content: Bytes) -> ParcelBody {
    // A raw quote after a comma opens a key or ends a text, and a text is not followed by a
    // letter: this can only be the key itself.
    let key = br#","content":""#;
    let at = body.windows(key.len()).position(|window| window == key).expect("the body has content");
    let (before, after) = (at + key.len(), at + key.len() + END_OF_BASE64.len());
    ParcelBody::Chunked { before: body.slice(..before), content, after: body.slice(after..) }
}

fn file_without_content(order: &DeliveryOrder) -> File<'_> {
    let change = &order.change;
    let previous = change.old.filter(|old| change.new.is_some_and(|new| new.mode != old.mode));
    File {
        path: String::from_utf8_lossy(&change.path),
        mode: change.new.map(|new| mode(new.mode)),
        blob: change.new.map(|new| new.blob),
        path_base64: in_base64(&change.path),
        renamed_from: order.renamed_from.as_deref().map(String::from_utf8_lossy),
        renamed_from_base64: order.renamed_from.as_deref().and_then(in_base64),
        previous_mode: previous.map(|old| mode(old.mode)),
        ..File::default()
    }
}

/// A path that no text can hold.
pub(super) fn in_base64(path: &[u8]) -> Option<String> {
    std::str::from_utf8(path).is_err().then(|| BASE64_STANDARD.encode(path))
}

/// A mode as Git writes it.
pub(super) fn mode(mode: u32) -> Cow<'static, str> {
    match mode {
        0o100_644 => Cow::Borrowed("100644"),
        0o100_755 => Cow::Borrowed("100755"),
        0o120_000 => Cow::Borrowed("120000"),
        _ => Cow::Owned(format!("{mode:06o}")),
    }
}

fn event<'a>(order: &'a DeliveryOrder, shared: &'a Shared) -> Event<'a> {
    let round: &Round = &order.lane.round;
    Event {
        id: order.id.as_str(),
        r#type: match order.change.operation {
            Operation::Create => "file.created",
            Operation::Update => "file.updated",
            Operation::Delete => "file.deleted",
        },
        cursor: &round.cursor,
        branch: round.branch_name(),
        previous_commit_sha: round.spec.held.as_ref().map(|end| end.commit),
        round: round.number,
        position: order.position,
        total: round.summary.total(),
        commit: shared.commit.as_deref(),
        history_rewritten: round.history_rewritten,
        skipped_commits: round.skipped_commits,
        replay_of: order.change.replay_of.as_ref().map(DeliveryId::as_str),
    }
}

/// The bytes that rendering takes beside a content: the text with its escapes, or base64, which is copied
/// into a body that is not chunked.
#[must_use]
pub(crate) fn rendered_bytes(content: &[u8], chunk_threshold: usize) -> u64 {
    let encoded = content.len().div_ceil(3) * 4;
    let rendered = match as_text(content) {
        Some(text) => text_bytes(text),
        None if content.len() > chunk_threshold => encoded,
        None => 2 * encoded,
    };
    rendered as u64
}

/// The bytes of a buffer for a body with this content.
fn buffer_bytes(content: &str) -> usize {
    if content.len() < EXACT_FROM {
        content.len() + content.len() / 16 + BESIDE_CONTENT
    } else {
        text_bytes(content) + BESIDE_CONTENT_MAX
    }
}

/// The bytes of a text in JSON.
fn text_bytes(text: &str) -> usize {
    text.bytes().map(escaped_bytes).sum()
}

/// The bytes of one byte of text in JSON.
fn escaped_bytes(byte: u8) -> usize {
    if matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C) {
        2
    } else if byte < b' ' {
        ESCAPED_BYTES_MAX
    } else {
        1
    }
}

/// The content as text, if it is valid UTF-8 without NUL.
#[must_use]
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.as_bytes().contains(&0))
}

/// Reads a Git LFS pointer (the `version`, `oid` and `size` lines of its specification).
#[must_use]
pub fn lfs_pointer(text: &str) -> Option<LfsPointer<'_>> {
    if text.len() >= 1024 {
        return None;
    }
    let rest = text.strip_prefix("version https://git-lfs.github.com/spec/v1\n")?;
    let value = |key: &str| rest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let oid = value("oid")?.strip_prefix("sha256:")?;
    let is_hash = oid.len() == 64 && oid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(LfsPointer { oid, size: value("size")?.parse().ok()? })
}

/// ISO 8601 with milliseconds and `Z`. Moments outside the years 0 to 9999 become the nearest that
/// can be written.
#[must_use]
pub fn iso(at: Timestamp) -> String {
    let millis = at.0.clamp(-62_167_219_200_000, 253_402_300_799_999);
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .expect("the years 0 to 9999 can be written");
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second, milli) = moment.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests;
