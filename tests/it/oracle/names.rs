//! What files are called and what is in them: few names, so that they return as other things, and among them
//! all that file systems, JSON, globs and terminals stumble over.

use crate::support::dice::Dice;

/// More than this makes a binary file go in chunks.
const CHUNKED: usize = 1 << 20;

/// Names of files and of directories alike.
const NAMES: &[&[u8]] = &[
    b"a",
    b"A",
    b"a.b",
    b"a-b",
    b"a0",
    b"b",
    b"docs",
    b"Docs",
    b"docs",
    b"src",
    b"src",
    b"x.md",
    b"y.txt",
    b"z.bin",
    b"new\nline",
    b"new\nline.bin",
    b"quote\"d",
    b"tab\there",
    b"back\\slash",
    b"latin-\xe9",
    b"\xff\xfe",
    b"\xff\xfe.bin",
    // One word to people, two names to Git.
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b" in and out ",
    b"*",
    b"[x]",
    b"{a,b}",
    b"-dash",
    b"\x01bell\x07\x7f",
    b"\xf0\x9f\x8e\x89",
    b"...",
    b"CON",
    b"a:b",
    // Half of a letter.
    b"\xc3",
    b"\xed\xa0\x80",
];

/// The longest name, in bytes.
const LONG: usize = 200;
/// Directories above a file, at most.
const DEPTH: u64 = 3;

/// A name of a file or of a directory.
pub(super) fn name(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(20) {
        return if dice.one_in(2) { vec![b'n'; LONG] } else { "ü".repeat(LONG / 2).into_bytes() };
    }
    dice.pick(NAMES).expect("some").to_vec()
}

/// A path of up to three directories and a file.
pub(super) fn path(dice: &mut Dice) -> Vec<u8> {
    let names: Vec<Vec<u8>> = (0..=dice.below(DEPTH + 1)).map(|_| name(dice)).collect();
    names.join(&b'/')
}

/// A content: mostly one of a few, so that contents return and move; seldom a large one.
pub(super) fn content(dice: &mut Dice) -> Vec<u8> {
    match dice.below(40) {
        0 => Vec::new(),
        1 => b"\0\x01binary\0".to_vec(),
        2 => b"caf\xe9\r\nlatin\n".to_vec(),
        3 => "text with \u{2028} and \u{0} ends".as_bytes().to_vec(),
        4 => format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
            format!("{:016x}", dice.number()).repeat(4)
        )
        .into_bytes(),
        5..=7 => {
            let length = 2_000 + dice.below(20_000);
            let line = format!("line {:x}\n", dice.number());
            line.bytes().cycle().take(usize::try_from(length).expect("short")).collect()
        }
        8 => {
            let length = dice.below(3_000);
            dice.bytes(usize::try_from(length).expect("short"))
        }
        9 if dice.one_in(12) => {
            let length = CHUNKED + usize::try_from(dice.below(400_000)).expect("short");
            dice.bytes(length)
        }
        _ => format!("content {}\n", dice.below(14)).into_bytes(),
    }
}

/// What a symbolic link says.
pub(super) fn target(dice: &mut Dice) -> Vec<u8> {
    match dice.below(5) {
        0 => b"../outside".to_vec(),
        1 => b"/etc/passwd".to_vec(),
        2 => b"latin-\xe9".to_vec(),
        _ => path(dice),
    }
}
