//! Large files come in pieces, which are put together as Docora's client does.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{Change, Model, sha256};

/// Which piece of a file this is.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) id: String,
    pub(super) index: u64,
    pub(super) total: u64,
    pub(super) offset: u64,
}

/// Reads it where there is one.
pub(super) fn read(chunk: &Value) -> Result<Option<Chunk>, &'static str> {
    if !chunk.is_object() {
        return Ok(None);
    }
    Ok(Some(Chunk {
        id: chunk["id"].as_str().ok_or("chunk id")?.to_owned(),
        index: chunk["index"].as_u64().ok_or("chunk index")?,
        total: chunk["total"].as_u64().ok_or("chunk total")?,
        offset: chunk["offset"].as_u64().ok_or("chunk offset")?,
    }))
}

impl Model {
    /// Buffers a chunk as Helix does; whether the file is whole with this one.
    pub(super) fn take_chunk(&mut self, change: &Change, chunk: &Chunk) -> bool {
        let rows = self.chunks.entry(chunk.id.clone()).or_default();
        if rows.len() as u64 != chunk.index {
            self.faults.push(format!(
                "chunk {} of {} came after {} others",
                chunk.index,
                chunk.id,
                rows.len()
            ));
            return false;
        }
        let before: usize = rows.iter().map(|text| text.len() / 4 * 3).sum();
        if chunk.offset != before as u64 {
            self.faults.push(format!("chunk {} of {} begins at {}", chunk.index, chunk.id, chunk.offset));
        }
        rows.push(change.body["file"]["content"].as_str().unwrap_or_default().to_owned());
        if chunk.index + 1 < chunk.total {
            return false;
        }
        let whole = self.chunks.remove(&chunk.id).unwrap_or_default().concat();
        let bytes = BASE64_STANDARD.decode(whole).unwrap_or_default();
        let file = &change.body["file"];
        if file["sha"] != sha256(&bytes) || file["size"] != bytes.len() {
            self.faults.push(format!("the chunks of {} are not what its sha says", change.id));
        }
        true
    }
}
