//! How two texts differ, line by line, as people read it: the hunks of a unified diff.

use git2::{DiffOptions, Patch};

/// The number of unchanged lines around a difference.
const CONTEXT_LINES: u32 = 3;

/// The hunks of a unified diff, from the first `@@` on; empty if both texts are equal. `None`: one of them is
/// no text. Takes some milliseconds of a processor per hundred kilobytes: callers limit the size.
#[must_use]
pub fn unified(old: &[u8], new: &[u8]) -> Option<String> {
    if !is_text(old) || !is_text(new) {
        return None;
    }
    let mut options = DiffOptions::new();
    options.context_lines(CONTEXT_LINES).force_text(true);
    let mut patch = Patch::from_buffers(old, None, new, None, Some(&mut options)).ok()?;
    let whole = patch.to_buf().ok()?;
    let whole = std::str::from_utf8(&whole).ok()?;
    let begins = |line: &&str| line.starts_with("@@ ");
    let head: usize = whole.split_inclusive('\n').take_while(|line| !begins(line)).map(str::len).sum();
    Some(whole[head..].to_owned())
}

/// Whether a content is shown as text: valid UTF-8 without NUL.
#[must_use]
pub fn is_text(content: &[u8]) -> bool {
    !content.contains(&0) && std::str::from_utf8(content).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_name_the_lines_that_differ_and_some_around_them() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni";
        let shown = unified(old.as_bytes(), new.as_bytes()).expect("two texts");
        let expected =
            "@@ -2,7 +2,8 @@ a\n b\n c\n d\n-e\n+E\n f\n g\n h\n+i\n\\ No newline at end of file\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_that_comes_or_goes_is_one_hunk_and_the_same_text_is_none() {
        assert_eq!(unified(b"", b"@@ one\n").expect("texts"), "@@ -0,0 +1 @@\n+@@ one\n");
        assert_eq!(unified(b"--- one\n", b"").expect("texts"), "@@ -1 +0,0 @@\n---- one\n");
        assert_eq!(unified(b"same\n", b"same\n").expect("texts"), "");
    }

    #[test]
    fn what_is_no_text_has_no_lines() {
        assert_eq!(unified(b"a\0b", b"text"), None);
        assert_eq!(unified(b"text", &[0xff, 0xfe]), None);
    }
}
