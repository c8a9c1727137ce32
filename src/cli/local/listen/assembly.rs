//! Files that come in chunks: base64 text, slice by slice, joined on disk and decoded once.

use std::{
    collections::VecDeque,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

use base64::{prelude::BASE64_STANDARD, read::DecoderReader};
use sha2::{Digest, Sha256};
use tidings_entity::id::Sha256Hash;

use super::{
    folder::{Folder, FolderError, Staged},
    message::Chunk,
};

/// Files that may be under way at the same time; beginning another drops the oldest.
const UNDER_WAY_MAX: usize = 16;
/// Characters of base64 text that one file may have (256 MiB decoded).
const TEXT_MAX: u64 = (256 << 20) / 3 * 4 + 4;

/// A file whose chunks are arriving.
struct Assembly {
    cursor: String,
    path: Vec<u8>,
    id: String,
    next: u64,
    length: u64,
    text: Staged,
}

/// The files under way, the oldest first.
#[derive(Default)]
pub struct Assemblies(VecDeque<Assembly>);

impl Assemblies {
    /// Adds a chunk. Returns the joined text after the last chunk.
    ///
    /// # Errors
    /// [`FolderError::Conflict`] for a chunk that is not the next one of its file: its sender begins the file
    /// again. Also when the disk fails.
    pub fn add(
        &mut self,
        folder: &mut Folder,
        (cursor, path): (&str, &[u8]),
        chunk: &Chunk,
        content: &str,
    ) -> Result<Option<Staged>, FolderError> {
        if chunk.index == 0 {
            self.drop_where(folder, |under_way| under_way.cursor == cursor && under_way.path == path)?;
            while self.0.len() >= UNDER_WAY_MAX {
                self.drop_first(folder)?;
            }
            let (cursor, path, id) = (cursor.to_owned(), path.to_owned(), chunk.id.clone());
            self.0.push_back(Assembly { cursor, path, id, next: 0, length: 0, text: folder.stage()? });
        }
        let is_next = |under_way: &Assembly| {
            under_way.cursor == cursor
                && under_way.path == path
                && under_way.id == chunk.id
                && under_way.next == chunk.index
                && chunk.offset.is_none_or(|offset| offset == under_way.length / 4 * 3)
        };
        let found = self.0.iter().position(is_next).filter(|_| chunk.index < chunk.total);
        let at = found.ok_or(FolderError::Conflict(
            "the chunk is not the next one of its file: send the \
             file again from its first chunk",
        ))?;
        let assembly = &mut self.0[at];
        if assembly.length + content.len() as u64 > TEXT_MAX {
            return Err(FolderError::Refused("the file is too large"));
        }
        assembly.text.file.write_all(content.as_bytes())?;
        assembly.length += content.len() as u64;
        assembly.next += 1;
        let is_whole = assembly.next == chunk.total;
        Ok(if is_whole { self.0.remove(at).map(|assembly| assembly.text) } else { None })
    }

    fn drop_where(
        &mut self,
        folder: &Folder,
        outdated: impl Fn(&Assembly) -> bool,
    ) -> Result<(), FolderError> {
        while let Some(at) = self.0.iter().position(&outdated) {
            self.0.rotate_left(at);
            self.drop_first(folder)?;
        }
        Ok(())
    }

    fn drop_first(&mut self, folder: &Folder) -> Result<(), FolderError> {
        match self.0.pop_front() {
            None => Ok(()),
            Some(assembly) => folder.discard(&assembly.text),
        }
    }
}

/// Decodes joined base64 text into a file of its own. Returns the file with the hash of its content; `None`
/// if the text is no base64.
///
/// # Errors
/// When the disk fails.
pub fn decode(folder: &mut Folder, text: &mut Staged) -> Result<Option<(Staged, Sha256Hash)>, FolderError> {
    text.file.rewind()?;
    let staged = folder.stage()?;
    let mut decoder = DecoderReader::new(BufReader::new(&text.file), &BASE64_STANDARD);
    let mut output = BufWriter::new(&staged.file);
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&piece[..read]);
                output.write_all(&piece[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                drop(output);
                folder.discard(&staged)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    output.flush()?;
    drop(output);
    Ok(Some((staged, Sha256Hash::new(hasher.finalize().into()))))
}
