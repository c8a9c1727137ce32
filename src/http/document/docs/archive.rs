//! The files of Swagger UI, from the zip archive that a crate embeds: its release, as its authors packed it.
//!
//! Only what that archive uses of the format is read: entries that are stored or deflated, with their sizes
//! in the list at the end. The archive is a part of the binary: a file that cannot be read is a defect, which
//! the test below finds, and counts as one that does not exist.

use std::io::Read;

use flate2::read::DeflateDecoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

/// The folder of the files that a browser needs, below the folder of the release.
const FOLDER: &str = "dist/";
/// How the record begins that says where the list of entries is.
const END: &[u8] = b"PK\x05\x06";
/// How an entry of the list begins.
const ENTRY: &[u8] = b"PK\x01\x02";
/// Bytes of an entry of the list before its path.
const ENTRY_BYTES: usize = 46;
/// Bytes before a content, its path and further fields left out.
const HEAD_BYTES: usize = 30;

/// The content of a file of the pages; `None`: there is no such file.
pub(super) fn file(name: &str) -> Option<Vec<u8>> {
    let end = ARCHIVE.get(ARCHIVE.windows(END.len()).rposition(|found| found == END)?..)?;
    let mut list = ARCHIVE.get(number(end, 16, 4)?..)?;
    while list.starts_with(ENTRY) {
        let path_end = ENTRY_BYTES + number(list, 28, 2)?;
        let path = str::from_utf8(list.get(ENTRY_BYTES..path_end)?).ok()?;
        let inside = path.split_once('/').and_then(|(_, inside)| inside.strip_prefix(FOLDER));
        if !name.is_empty() && inside == Some(name) {
            return content(list);
        }
        list = list.get(path_end + number(list, 30, 2)? + number(list, 32, 2)?..)?;
    }
    None
}

/// The content of the first entry of this rest of the list.
fn content(entry: &[u8]) -> Option<Vec<u8>> {
    let (method, packed, size) = (number(entry, 10, 2)?, number(entry, 20, 4)?, number(entry, 24, 4)?);
    let head = ARCHIVE.get(number(entry, 42, 4)?..)?;
    let begin = HEAD_BYTES + number(head, 26, 2)? + number(head, 28, 2)?;
    let packed = head.get(begin..begin + packed)?;
    match method {
        0 => Some(packed.to_vec()),
        8 => {
            let mut content = Vec::with_capacity(size);
            DeflateDecoder::new(packed).read_to_end(&mut content).ok()?;
            (content.len() == size).then_some(content)
        }
        _ => None,
    }
}

/// A number of `length` bytes at this place, the least byte first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_deflated_files_are_read_whole_and_no_others_exist() {
        let text = |name| String::from_utf8(file(name).expect(name)).expect("a text");
        assert!(text("index.html").trim_end().ends_with("</html>"));
        assert!(text("swagger-ui-bundle.js").len() > 1_000_000);
        assert!(file("favicon-16x16.png").expect("a picture").starts_with(b"\x89PNG"));
        for name in ["", "none.js", "dist/index.html", "../package.json", "package.json"] {
            assert_eq!(file(name), None, "{name}");
        }
    }
}
