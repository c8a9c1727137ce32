//! What happens to the files of a tree between two commits.

use tidings_entity::id::ObjectId;

use super::{
    names,
    objects::{Entry, Files, LINK, MODULE, Objects},
};
use crate::support::dice::Dice;

/// The modes of a file that Git has or had.
const MODES: [u32; 3] = [0o100_644, 0o100_755, 0o100_664];

/// Longer paths are not made: a tree with one of more than 4,096 bytes is refused.
const LONGEST: usize = 1_500;

/// Puts a path there; whatever stands in its way goes.
pub(super) fn put(files: &mut Files, path: Vec<u8>, entry: Entry) {
    if path.len() > LONGEST {
        return;
    }
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        files.remove(&path[..at]);
    }
    remove_below(files, &path);
    files.insert(path, entry);
}

fn remove_below(files: &mut Files, directory: &[u8]) {
    for path in below(files, directory) {
        files.remove(&path);
    }
}

/// The paths below a directory.
fn below(files: &Files, directory: &[u8]) -> Vec<Vec<u8>> {
    let prefix = [directory, b"/"].concat();
    let paths = files.range(prefix.clone()..).map(|(path, _)| path);
    paths.take_while(|path| path.starts_with(&prefix)).cloned().collect()
}

/// A new path, or another thing at an old one.
pub(super) fn create(files: &mut Files, objects: &mut Objects, dice: &mut Dice) {
    let entry = entry(objects, dice);
    put(files, names::path(dice), entry);
}

/// One edit of any kind.
pub(super) fn edit(files: &mut Files, objects: &mut Objects, dice: &mut Dice) {
    let known: Vec<Vec<u8>> = files.keys().cloned().collect();
    let Some(path) = dice.pick(&known).cloned() else { return create(files, objects, dice) };
    let (mode, id) = files[&path];
    match dice.below(22) {
        0..=4 => create(files, objects, dice),
        5..=9 => {
            // A submodule stays one: another commit of it.
            let fresh = if mode == MODULE { module(dice) } else { content(mode, objects, dice) };
            files.insert(path, (mode, fresh));
        }
        10..=11 => {
            files.remove(&path);
        }
        12..=13 => {
            let mode = if MODES.contains(&mode) { *dice.pick(&MODES).expect("some") } else { mode };
            files.insert(path, (mode, id));
        }
        14 => {
            files.remove(&path);
            put(files, names::path(dice), (mode, id));
        }
        15 => move_directory(files, &path, dice),
        16 => change_case(files, &path),
        // Another class at the same path.
        17..=18 => {
            files.insert(path, entry(objects, dice));
        }
        19 => {
            let below = [path.as_slice(), b"/", &names::path(dice)].concat();
            put(files, below, (mode, id));
        }
        20 => {
            // A directory becomes a file, or goes.
            let directory = directory(&path).to_vec();
            remove_below(files, &directory);
            if !directory.is_empty() && dice.one_in(2) {
                put(files, directory, (mode, id));
            }
        }
        _ => put(files, names::path(dice), (mode, id)),
    }
}

/// What a path may be.
fn entry(objects: &mut Objects, dice: &mut Dice) -> Entry {
    let mode = match dice.below(20) {
        0..=1 => LINK,
        2 => MODULE,
        3..=4 => MODES[1],
        5 => MODES[2],
        _ => MODES[0],
    };
    (mode, if mode == MODULE { module(dice) } else { content(mode, objects, dice) })
}

fn content(mode: u32, objects: &mut Objects, dice: &mut Dice) -> ObjectId {
    let data = if mode == LINK { names::target(dice) } else { names::content(dice) };
    objects.write("blob", &data)
}

/// A commit of another repository.
fn module(dice: &mut Dice) -> ObjectId {
    let bytes = dice.bytes(20);
    ObjectId::new(bytes.try_into().expect("20 bytes"))
}

/// The directory of a path; empty at the root.
fn directory(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

fn move_directory(files: &mut Files, path: &[u8], dice: &mut Dice) {
    let from = directory(path).to_vec();
    if from.is_empty() {
        return;
    }
    let to = names::path(dice);
    let moved: Vec<(Vec<u8>, Entry)> =
        below(files, &from).into_iter().map(|path| (path.clone(), files[&path])).collect();
    remove_below(files, &from);
    for (path, entry) in moved {
        put(files, [to.as_slice(), &path[from.len()..]].concat(), entry);
    }
}

/// Renames a file by the case of its first letter alone.
fn change_case(files: &mut Files, path: &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let mut renamed = path.to_vec();
    match renamed.get_mut(at) {
        Some(letter) if letter.is_ascii_lowercase() => letter.make_ascii_uppercase(),
        Some(letter) => letter.make_ascii_lowercase(),
        None => {}
    }
    if let Some(entry) = files.remove(path) {
        put(files, renamed, entry);
    }
}
