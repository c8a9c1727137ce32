//! A tree object, parsed and checked. No proper tool writes a tree that fails these checks; a tree that does
//! is refused as a whole, because its paths could have another meaning for a receiver that writes them to a
//! disk.

use std::cmp::Ordering;

use tidings_actors::ports::GitError;
use tidings_entity::id::ObjectId;

/// Longest admitted path, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 4_096;

/// A directory's entries, in Git's order: by name, where a directory's name ends in `/`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    raw: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    mode: u32,
    name: (u32, u32),
}

/// One entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeEntry<'a> {
    /// The mode as stored.
    pub(crate) mode: u32,
    /// The last component of the path.
    pub(crate) name: &'a [u8],
    /// The id of the blob, tree or submodule commit.
    pub(crate) id: ObjectId,
}

impl TreeEntry<'_> {
    /// Whether this is a directory.
    pub(crate) fn is_tree(&self) -> bool {
        is_tree(self.mode)
    }

    /// Compares the places of two entries in the order of a tree object.
    pub(crate) fn order(&self, other: &TreeEntry<'_>) -> Ordering {
        compare((self.name, self.is_tree()), (other.name, other.is_tree()))
    }
}

/// Whether a mode is that of a directory.
pub(crate) fn is_tree(mode: u32) -> bool {
    mode & 0o170_000 == 0o040_000
}

/// Orders names as the bytes of the paths below them: a directory's name ends in `/`.
fn compare((one, one_is_tree): (&[u8], bool), (other, other_is_tree): (&[u8], bool)) -> Ordering {
    let shared = one.len().min(other.len());
    one[..shared].cmp(&other[..shared]).then_with(|| {
        let next = |name: &[u8], is_tree| match name.get(shared) {
            Some(byte) => Some(*byte),
            None if is_tree => Some(b'/'),
            None => None,
        };
        next(one, one_is_tree).cmp(&next(other, other_is_tree)).then(one.len().cmp(&other.len()))
    })
}

impl Tree {
    /// Parses and checks the bytes of a tree object.
    ///
    /// # Errors
    /// [`GitError::MalformedTree`] and [`GitError::TooLarge`].
    pub(crate) fn parse(id: ObjectId, raw: Vec<u8>) -> Result<Self, GitError> {
        let malformed = |what: &str| GitError::MalformedTree(format!("{what} in tree {id}"));
        let mut tree = Self { slots: Vec::with_capacity(raw.len() / 32), raw };
        let mut at = 0;
        while at < tree.raw.len() {
            let rest = &tree.raw[at..];
            let space = rest.iter().take(8).position(|byte| *byte == b' ');
            let space = space.ok_or_else(|| malformed("a mode without end"))?;
            let mode = mode(&rest[..space]).ok_or_else(|| malformed("an impossible mode"))?;
            let end = rest[space + 1..].iter().position(|byte| *byte == 0);
            let end = space + 1 + end.ok_or_else(|| malformed("a name without end"))?;
            if rest.len() < end + 21 {
                return Err(malformed("an entry cut short"));
            }
            check_name(&rest[space + 1..end]).map_err(malformed)?;
            let name = (offset(at + space + 1)?, offset(at + end)?);
            tree.slots.push(Slot { mode, name });
            tree.check_place().map_err(malformed)?;
            at += end + 21;
        }
        Ok(tree)
    }

    /// The last entry must come after all others, and no file may have the name of a directory.
    fn check_place(&self) -> Result<(), &'static str> {
        let Some((last, before)) = self.slots.split_last() else { return Ok(()) };
        let last = (self.name(*last), is_tree(last.mode));
        let Some(previous) = before.last() else { return Ok(()) };
        if compare((self.name(*previous), is_tree(previous.mode)), last) != Ordering::Less {
            return Err("entries that are not sorted, or twice there,");
        }
        let twin = |slot: &Slot| compare((self.name(*slot), is_tree(slot.mode)), (last.0, false));
        if last.1 && before.binary_search_by(twin).is_ok() {
            return Err("a file and a directory of one name");
        }
        Ok(())
    }

    fn name(&self, slot: Slot) -> &[u8] {
        &self.raw[slot.name.0 as usize..slot.name.1 as usize]
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many bytes the object has.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// The entry at an index.
    pub(crate) fn get(&self, index: usize) -> Option<TreeEntry<'_>> {
        self.slots.get(index).map(|slot| {
            let after = slot.name.1 as usize + 1;
            let id = self.raw[after..after + 20].try_into().expect("a parsed entry ends in 20 bytes");
            TreeEntry { mode: slot.mode, name: self.name(*slot), id: ObjectId::new(id) }
        })
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = TreeEntry<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The entry of a name, a directory or not.
    pub(crate) fn find(&self, name: &[u8]) -> Option<TreeEntry<'_>> {
        [false, true].into_iter().find_map(|wanted| {
            let order = |slot: &Slot| compare((self.name(*slot), is_tree(slot.mode)), (name, wanted));
            self.slots.binary_search_by(order).ok().and_then(|index| self.get(index))
        })
    }
}

fn offset(at: usize) -> Result<u32, GitError> {
    u32::try_from(at).map_err(|_| GitError::TooLarge("a tree object of 4 GiB".to_owned()))
}

/// A mode, where it says file, directory, symbolic link or submodule. Old commits hold other permissions of
/// files: only the executable bit of the owner counts, as for git. `100664` stays as it is stored.
fn mode(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    let mode = digits.iter().fold(0, |mode, digit| mode << 3 | u32::from(digit - b'0'));
    match mode & !0o7_777 {
        0o100_000 if mode == 0o100_664 => Some(mode),
        0o100_000 => Some(if mode & 0o100 == 0 { 0o100_644 } else { 0o100_755 }),
        class @ (0o040_000 | 0o120_000 | 0o160_000) => Some(class),
        _ => None,
    }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("an empty name")
    } else if name.contains(&b'/') {
        Err("a name with a slash")
    } else if name == b"." || name == b".." {
        Err("a name that is `.` or `..`")
    } else if is_dot_git(name) {
        Err("a name that some file system takes for `.git`")
    } else {
        Ok(())
    }
}

/// Whether some file system takes this name for `.git`: in any case; on NTFS with trailing dots
/// and spaces, as a stream, or as the short name `git~1`; on HFS+ with characters it ignores.
fn is_dot_git(name: &[u8]) -> bool {
    if !matches!(name.first(), Some(b'.' | b'g' | b'G' | 0xe2 | 0xef)) {
        return false;
    }
    let component = name.split(|byte| matches!(byte, b':' | b'\\')).next().unwrap_or_default();
    let kept = component.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let windows = &component[..kept];
    if windows.eq_ignore_ascii_case(b".git") || windows.eq_ignore_ascii_case(b"git~1") {
        return true;
    }
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let visible = text.chars().filter(|character| !is_ignored_by_hfs(*character));
    visible.flat_map(char::to_lowercase).eq(".git".chars())
}

fn is_ignored_by_hfs(character: char) -> bool {
    matches!(u32::from(character), 0x200c..=0x200f | 0x202a..=0x202e | 0x206a..=0x206f | 0xfeff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, &[u8])]) -> Result<Tree, GitError> {
        let mut raw = Vec::new();
        for (mode, name) in entries {
            raw.extend_from_slice(mode.as_bytes());
            raw.push(b' ');
            raw.extend_from_slice(name);
            raw.push(0);
            raw.extend_from_slice(&[7; 20]);
        }
        Tree::parse(ObjectId::new([1; 20]), raw)
    }

    #[test]
    fn of_the_permissions_of_a_file_only_the_executable_bit_counts() {
        let modes = ["100600", "100664", "100775", "100777", "100700", "040755", "120777"];
        for (mode, read) in
            modes.iter().zip([0o100_644, 0o100_664, 0o100_755, 0o100_755, 0o100_755, 0o040_000, 0o120_000])
        {
            let tree = parse(&[(*mode, b"a")]).expect("a tree");
            assert_eq!(tree.iter().next().map(|entry| entry.mode), Some(read), "{mode}");
        }
    }

    #[test]
    fn an_honest_tree_is_read_in_order_and_searched_by_name() {
        let entries: [(&str, &[u8]); 6] = [
            ("100664", b"a"),
            ("100644", b"a.b"),
            ("40000", b"b"),
            ("100755", b"b0"),
            ("120000", b"c\xff\n"),
            ("160000", b"d"),
        ];
        let tree = parse(&entries).expect("honest");
        let names: Vec<_> = tree.iter().map(|entry| entry.name.to_vec()).collect();
        assert_eq!(names, entries.map(|(_, name)| name.to_vec()));
        for (mode, name) in entries {
            let found = tree.find(name).expect("there");
            assert_eq!((found.name, format!("{:o}", found.mode)), (name, mode.to_owned()));
        }
        assert_eq!(tree.find(b"b1"), None);
    }

    #[test]
    fn a_directory_sorts_as_its_paths_do() {
        parse(&[("100644", b"a-b"), ("40000", b"a")]).expect("`a-b` comes before `a/`");
        assert!(parse(&[("40000", b"a"), ("100644", b"a-b")]).is_err());
        parse(&[("40000", b"a"), ("100644", b"a0")]).expect("`a/` comes before `a0`");
    }

    #[test]
    fn what_no_honest_tool_writes_is_refused() {
        let files: [&[&[u8]]; 12] = [
            &[b""],
            &[b"."],
            &[b".."],
            &[b"a/b"],
            &[b".git"],
            &[b".GiT"],
            &[b".git. ."],
            &[b".git::$INDEX_ALLOCATION"],
            &[b"GIT~1"],
            &[".g\u{200c}it".as_bytes()],
            &[b"b", b"a"],
            &[b"a", b"a"],
        ];
        for names in files {
            let entries: Vec<_> = names.iter().map(|name| ("100644", *name)).collect();
            assert!(matches!(parse(&entries), Err(GitError::MalformedTree(_))), "{names:?}");
        }
        let twins: [(&str, &[u8]); 3] = [("100644", b"a"), ("100644", b"a-b"), ("40000", b"a")];
        assert!(matches!(parse(&twins), Err(GitError::MalformedTree(_))));
        for mode in ["", "0", "200000", "10064x", "777777777"] {
            assert!(matches!(parse(&[(mode, b"a")]), Err(GitError::MalformedTree(_))), "{mode}");
        }
        for honest in [&b".gitignore"[..], b".github", b"git", b"git~2", b"...", b".git-x", b"g"] {
            parse(&[("100644", honest)]).expect("honest");
        }
    }

    #[test]
    fn a_tree_cut_short_is_refused() {
        let mut whole = b"100644 a\0".to_vec();
        whole.extend_from_slice(&[7; 20]);
        for length in 1..whole.len() {
            let cut = Tree::parse(ObjectId::new([1; 20]), whole[..length].to_vec());
            assert!(matches!(cut, Err(GitError::MalformedTree(_))), "{length}");
        }
    }
}
