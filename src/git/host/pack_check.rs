//! Checks a pack before it is indexed, entry by entry, in constant memory: the declared and the real size of
//! each object, and the sizes of the base and the result of each delta. libgit2 holds base, delta and result
//! of a delta whole in memory and trusts the declared sizes; its own limit can be set only by an unsafe call,
//! which this workspace forbids. libgit2 streams other objects, so that these may be far larger. See
//! gitformat-pack(5).
//!
//! Beyond a limit the fetch ends with [`GitError::TooLarge`], which names the limit.

use std::collections::BTreeMap;

use flate2::{Decompress, FlushDecompress, Status};
use tidings_actors::ports::GitError;
use tidings_entity::id::ObjectId;

use crate::failure;

/// Most bytes before the data of an entry: a size, and a base.
const HEAD_BYTES_MAX: usize = 32;
/// Bytes at the beginning of a delta that hold its two sizes.
const SIZES_BYTES_MAX: usize = 20;
/// The number of bytes that are inflated at a time.
const WINDOW_BYTES: usize = 32 << 10;

/// The limits for a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackLimits {
    /// Largest object in bytes.
    pub(crate) object_bytes: u64,
    /// Largest object in bytes that a delta makes, or is made from.
    pub(crate) delta_bytes: u64,
    /// Most bytes of all entries together, inflated.
    pub(crate) unpacked_bytes: u64,
}

/// Says how large an object is that was here before, if it was.
pub(crate) type Known<'a> = dyn Fn(ObjectId) -> Option<u64> + 'a;

/// The check of one pack. It is given the bytes after the pack's 12-byte header.
pub(crate) struct PackCheck {
    limits: PackLimits,
    left: u32,
    /// Where in the pack the next byte is.
    at: u64,
    entry: Entry,
    inflate: Decompress,
    window: Box<[u8]>,
    unpacked: u64,
    /// Objects above the limit for deltas, by their offset: no delta may use them as its base.
    large: BTreeMap<u64, u64>,
    has_unknown_base: bool,
    largest_delta: u64,
}

enum Entry {
    Head { began: u64, head: Vec<u8> },
    Data(Data),
    Trailer,
}

struct Data {
    size: u64,
    produced: u64,
    /// The beginning of a delta, until its two sizes are known.
    sizes: Option<Vec<u8>>,
}

enum Base {
    /// The entry is no delta.
    Whole,
    /// The base object is this many bytes before the entry.
    Before(u64),
    Named(ObjectId),
}

impl PackCheck {
    /// Creates a check for a pack of this many objects.
    pub(crate) fn new(limits: PackLimits, objects: u32) -> Self {
        let entry = Entry::Head { began: 12, head: Vec::with_capacity(HEAD_BYTES_MAX) };
        Self {
            limits,
            left: objects,
            at: 12,
            entry: if objects == 0 { Entry::Trailer } else { entry },
            inflate: Decompress::new(true),
            window: vec![0; WINDOW_BYTES].into_boxed_slice(),
            unpacked: 0,
            large: BTreeMap::new(),
            has_unknown_base: false,
            largest_delta: 0,
        }
    }

    /// The largest object in bytes that a delta seen so far makes or is made from.
    pub(crate) fn largest_delta(&self) -> u64 {
        self.largest_delta
    }

    /// Checks the next bytes of the pack.
    ///
    /// # Errors
    /// [`GitError::TooLarge`], and [`GitError::Protocol`] for bytes that are no pack.
    pub(crate) fn take(&mut self, mut bytes: &[u8], known: &Known<'_>) -> Result<(), GitError> {
        while !bytes.is_empty() {
            let used = match &mut self.entry {
                Entry::Trailer => return Ok(()),
                Entry::Head { head, .. } => {
                    head.push(bytes[0]);
                    self.at += 1;
                    self.begin(known)?;
                    1
                }
                Entry::Data(_) => self.inflate(bytes)?,
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Goes on to the data of an entry once its header is complete.
    fn begin(&mut self, known: &Known<'_>) -> Result<(), GitError> {
        let Entry::Head { began, head } = &self.entry else { return Ok(()) };
        let Some((size, base)) = read_head(head)? else { return Ok(()) };
        let began = *began;
        let is_delta = !matches!(base, Base::Whole);
        let limit = if is_delta { self.limits.delta_bytes } else { self.limits.object_bytes };
        if size > limit {
            let what = if is_delta { "a delta" } else { "an object" };
            return Err(too_large(what, size, limit));
        }
        match base {
            Base::Whole if size > self.limits.delta_bytes => {
                self.large.insert(began, size);
            }
            Base::Whole => {}
            Base::Before(distance) => {
                let base = began.checked_sub(distance).filter(|base| *base >= 12 && *base < began);
                let base = base.ok_or_else(|| malformed("a delta whose base is outside of it"))?;
                if let Some(size) = self.large.get(&base) {
                    return Err(too_large("a delta of an object", *size, self.limits.delta_bytes));
                }
            }
            Base::Named(id) => match known(id) {
                Some(size) if size > self.limits.delta_bytes => {
                    return Err(too_large("a delta of an object", size, self.limits.delta_bytes));
                }
                Some(_) => {}
                None => self.has_unknown_base = true,
            },
        }
        // A base that is named and not here may be any object of the pack.
        if self.has_unknown_base
            && let Some(size) = self.large.values().max()
        {
            return Err(too_large("perhaps a delta of an object", *size, self.limits.delta_bytes));
        }
        self.inflate.reset(true);
        self.entry = Entry::Data(Data { size, produced: 0, sizes: is_delta.then(Vec::new) });
        Ok(())
    }

    /// Inflates a piece of the data of an entry; how many bytes of it were used.
    fn inflate(&mut self, bytes: &[u8]) -> Result<usize, GitError> {
        let Entry::Data(data) = &mut self.entry else { return Ok(0) };
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(bytes, &mut self.window, FlushDecompress::None)
            .map_err(|_| malformed("an entry that is not deflated"))?;
        let used = usize::try_from(self.inflate.total_in() - before.0).unwrap_or(bytes.len());
        let produced = self.inflate.total_out() - before.1;
        data.produced += produced;
        self.unpacked += produced;
        self.at += used as u64;
        if data.produced > data.size || status == Status::StreamEnd && data.produced < data.size {
            return Err(malformed("an entry of another size than it says"));
        }
        if self.unpacked > self.limits.unpacked_bytes {
            return Err(too_large("a pack", self.unpacked, self.limits.unpacked_bytes));
        }
        if let Some(sizes) = &mut data.sizes {
            let piece = usize::try_from(produced).unwrap_or(0).min(SIZES_BYTES_MAX - sizes.len());
            sizes.extend_from_slice(&self.window[..piece]);
            let largest = largest_of(sizes)?;
            if let Some(largest) = largest {
                if largest > self.limits.delta_bytes {
                    return Err(too_large("a delta of or to an object", largest, self.limits.delta_bytes));
                }
                self.largest_delta = self.largest_delta.max(largest).max(data.size);
                data.sizes = None;
            } else if sizes.len() == SIZES_BYTES_MAX || status == Status::StreamEnd {
                return Err(malformed("a delta without sizes"));
            }
        }
        if status == Status::StreamEnd {
            self.left -= 1;
            self.entry = match self.left {
                0 => Entry::Trailer,
                _ => Entry::Head { began: self.at, head: Vec::with_capacity(HEAD_BYTES_MAX) },
            };
        } else if used == 0 && produced == 0 {
            return Err(malformed("an entry that does not end"));
        }
        Ok(used)
    }
}

/// Size and base of an entry, if all of its head is here.
fn read_head(head: &[u8]) -> Result<Option<(u64, Base)>, GitError> {
    let Some(first) = head.first() else { return Ok(None) };
    let kind = first >> 4 & 7;
    let (mut size, mut shift, mut at) = (u64::from(first & 15), 4, 1);
    let mut more = first & 0x80 != 0;
    while more {
        let Some(byte) = head.get(at) else { return within(head) };
        if shift > 57 {
            return Err(malformed("a size beyond any"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        (shift, at, more) = (shift + 7, at + 1, byte & 0x80 != 0);
    }
    let rest = &head[at..];
    match kind {
        1..=4 => Ok(Some((size, Base::Whole))),
        6 => match distance(rest)? {
            Some(distance) => Ok(Some((size, Base::Before(distance)))),
            None => within(head),
        },
        7 => match <[u8; 20]>::try_from(rest) {
            Ok(id) => Ok(Some((size, Base::Named(ObjectId::new(id))))),
            Err(_) => within(head),
        },
        _ => Err(malformed("an entry of an unknown kind")),
    }
}

/// More bytes of the entry's head are needed, unless it is too long already.
fn within<T>(head: &[u8]) -> Result<Option<T>, GitError> {
    if head.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(malformed("an entry whose head does not end")) }
}

/// The distance to a base: big-endian groups of seven bits; each but the last counts one more than its bits.
fn distance(bytes: &[u8]) -> Result<Option<u64>, GitError> {
    let mut distance: u64 = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            distance = distance.checked_add(1).ok_or_else(|| malformed("a base beyond any"))?;
        }
        if distance >> 57 != 0 {
            return Err(malformed("a base beyond any"));
        }
        distance = distance << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(Some(distance));
        }
    }
    Ok(None)
}

/// The larger of the two sizes that a delta begins with, if both are here.
fn largest_of(bytes: &[u8]) -> Result<Option<u64>, GitError> {
    let (mut largest, mut rest) = (0, bytes);
    for _ in 0..2 {
        let Some(end) = rest.iter().position(|byte| byte & 0x80 == 0) else { return Ok(None) };
        if end > 8 {
            return Err(malformed("a size beyond any"));
        }
        let size = rest[..=end].iter().rev().fold(0_u64, |size, byte| size << 7 | u64::from(byte & 0x7f));
        (largest, rest) = (largest.max(size), &rest[end + 1..]);
    }
    Ok(Some(largest))
}

fn malformed(what: &str) -> GitError {
    GitError::Protocol(format!("bad pack: {}", failure::shown(what.as_bytes())))
}

fn too_large(what: &str, size: u64, limit: u64) -> GitError {
    GitError::TooLarge(format!("{what} of {size} bytes, where {limit} are admitted"))
}

#[cfg(test)]
mod tests;
