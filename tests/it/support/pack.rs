//! Packs made by hand, for what no honest tool writes.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::ZlibEncoder};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A pack on its way.
pub(crate) struct Pack {
    bytes: Vec<u8>,
    objects: u32,
}

impl Pack {
    pub(crate) fn new() -> Self {
        Self { bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(), objects: 0 }
    }

    /// A blob; where it begins.
    pub(crate) fn blob(&mut self, content: &[u8]) -> usize {
        let began = self.bytes.len();
        self.head(3, content.len());
        self.deflate(content);
        began
    }

    /// A blob that is not compressed: for large packs, which are made quickly so.
    pub(crate) fn stored_blob(&mut self, content: &[u8]) {
        self.head(3, content.len());
        self.encode(content, Compression::none());
    }

    /// A delta on the object that begins at `base`, of these two sizes, with these instructions.
    pub(crate) fn delta(&mut self, base: usize, from: u64, to: u64, instructions: &[u8]) {
        let distance = self.bytes.len() - base;
        let data = [size(from), size(to), instructions.to_vec()].concat();
        self.head(6, data.len());
        let mut groups = vec![(distance & 0x7f) as u8];
        let mut rest = distance >> 7;
        while rest > 0 {
            rest -= 1;
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.extend(groups.iter().rev());
        self.deflate(&data);
    }

    /// A delta on an object that is not in the pack, as in a thin one.
    pub(crate) fn thin_delta(&mut self, base: [u8; 20], from: u64, to: u64, instructions: &[u8]) {
        let data = [size(from), size(to), instructions.to_vec()].concat();
        self.head(7, data.len());
        self.bytes.extend_from_slice(&base);
        self.deflate(&data);
    }

    /// The pack with its number of objects and its hash.
    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes[8..12].copy_from_slice(&self.objects.to_be_bytes());
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.bytes);
        self.bytes.extend_from_slice(hash.as_ref());
        self.bytes.into()
    }

    fn head(&mut self, kind: u8, size: usize) {
        self.objects += 1;
        let mut rest = size >> 4;
        let mut byte = kind << 4 | (size & 15) as u8;
        while rest > 0 {
            self.bytes.push(byte | 0x80);
            byte = (rest & 0x7f) as u8;
            rest >>= 7;
        }
        self.bytes.push(byte);
    }

    fn deflate(&mut self, data: &[u8]) {
        self.encode(data, Compression::fast());
    }

    fn encode(&mut self, data: &[u8], compression: Compression) {
        let mut encoder = ZlibEncoder::new(&mut self.bytes, compression);
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory");
    }
}

fn size(mut size: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while size > 0x7f {
        bytes.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes
}
