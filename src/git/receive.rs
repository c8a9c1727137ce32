//! Takes a pack in: on a blocking thread of its own, fed through a short channel, so that a slow
//! disk slows the download instead of filling memory. Nothing becomes visible in the mirror until
//! the pack is indexed and all that was wanted is seen to be complete. If the channel closes before
//! [`Piece::End`], the fetch was given up and nothing stays behind.

use std::{collections::BTreeSet, io::Write, sync::Arc};

use bytes::Bytes;
use git2::Indexer;
use tidings_actors::ports::GitError;
use tidings_entity::id::ObjectId;
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::{
    closure, failure,
    limits::{Cancel, Limits},
    mirror::{Mirror, Quarantine},
    objects::Objects,
};
use crate::settings::git::GitSettings;

/// Signature, version and number of objects.
const PACK_HEADER_BYTES: usize = 12;
/// A pack without objects is its header and its hash.
const EMPTY_PACK_OBJECTS: u32 = 0;

/// What a fetch hands over.
pub(super) enum Piece {
    /// Bytes of the pack.
    Pack(Bytes),
    /// The pack is whole.
    End(ShallowChange),
}

/// How the list of commits without parents changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShallowChange {
    pub(super) added: Vec<ObjectId>,
    pub(super) removed: Vec<ObjectId>,
}

/// What must be complete before the pack is let in.
pub(super) struct Expected {
    pub(super) mirror: Arc<Mirror>,
    pub(super) wants: Vec<ObjectId>,
    pub(super) haves: Vec<ObjectId>,
    /// The right to write; whoever drops this last lets the next writer in.
    pub(super) _turn: Arc<OwnedMutexGuard<()>>,
}

/// Takes a pack in; blocks. Returns the number of its objects.
pub(super) fn receive(
    expected: &Expected,
    settings: &GitSettings,
    mut pieces: mpsc::Receiver<Piece>,
    cancel: &Cancel,
) -> Result<u64, GitError> {
    let mut intake = Intake {
        quarantine: expected.mirror.quarantine()?,
        bases: expected.mirror.open()?,
        max_objects: settings.fetch_max_objects,
        head: Vec::with_capacity(PACK_HEADER_BYTES),
        objects: None,
        indexer: None,
    };
    let shallow = loop {
        match pieces.blocking_recv() {
            Some(Piece::Pack(bytes)) => intake.take(&bytes)?,
            Some(Piece::End(shallow)) => break shallow,
            None => return Err(GitError::Cancelled),
        }
    };
    let (objects, quarantine) = intake.finish()?;
    let limits = || Limits::new(settings, cancel.clone());
    let mirror = &expected.mirror;
    let open = Objects::open(&[quarantine.objects(), &mirror.objects()])?;
    for want in &expected.wants {
        closure::check(&open, &limits(), *want, &expected.haves)?;
    }
    drop(open);
    // Shallow lines first: one too many is harmless, one too few misleads the host.
    if shallow != ShallowChange::default() {
        let mut lines: BTreeSet<_> = mirror.shallow();
        lines.extend(shallow.added);
        mirror.set_shallow(&lines)?;
        mirror.promote(&quarantine)?;
        if !shallow.removed.is_empty() {
            lines.retain(|line| !shallow.removed.contains(line));
            mirror.set_shallow(&lines)?;
        }
    } else {
        mirror.promote(&quarantine)?;
    }
    for want in &expected.wants {
        mirror.mark_complete(*want);
    }
    Ok(objects)
}

/// A pack on its way in.
struct Intake {
    quarantine: Quarantine,
    max_objects: u32,
    head: Vec<u8>,
    objects: Option<u32>,
    // Dropped before `bases`, which it reads.
    indexer: Option<Indexer<'static>>,
    bases: Objects,
}

impl Intake {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), GitError> {
        if self.objects.is_none() {
            let lacking = PACK_HEADER_BYTES - self.head.len();
            let (head, rest) = bytes.split_at(lacking.min(bytes.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if self.head.len() == PACK_HEADER_BYTES {
                self.begin()?;
            }
        }
        match &mut self.indexer {
            Some(indexer) => indexer.write_all(bytes).map_err(|error| of_write(&error)),
            None => Ok(()),
        }
    }

    /// The header is here: nothing is indexed before the number of objects is known to be sane.
    fn begin(&mut self) -> Result<(), GitError> {
        let version = u32::from_be_bytes(self.head[4..8].try_into().expect("4 of 12 bytes"));
        let objects = u32::from_be_bytes(self.head[8..12].try_into().expect("4 of 12 bytes"));
        if &self.head[..4] != b"PACK" || !matches!(version, 2 | 3) {
            return Err(GitError::Protocol("what came is no pack".to_owned()));
        }
        if objects > self.max_objects {
            return Err(GitError::TooLarge(format!("a pack of {objects} objects")));
        }
        self.objects = Some(objects);
        if objects != EMPTY_PACK_OBJECTS {
            let indexing = |error: git2::Error| failure::of_indexing(&error);
            let mut indexer = self.bases.indexer(&self.quarantine.packs()).map_err(indexing)?;
            indexer.write_all(&self.head).map_err(|error| of_write(&error))?;
            self.indexer = Some(indexer);
        }
        Ok(())
    }

    fn finish(self) -> Result<(u64, Quarantine), GitError> {
        let Some(objects) = self.objects else {
            return match self.head.len() {
                0 => Ok((0, self.quarantine)),
                _ => Err(GitError::Protocol("the pack ends within its header".to_owned())),
            };
        };
        if let Some(indexer) = self.indexer {
            indexer.commit().map_err(|error| failure::of_indexing(&error))?;
        }
        Ok((u64::from(objects), self.quarantine))
    }
}

fn of_write(error: &std::io::Error) -> GitError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<git2::Error>()) {
        Some(error) => failure::of_indexing(error),
        None => failure::of_disk(error),
    }
}
