//! The changes of a round at one path, from the entries of each tree and from the file that the app has. The
//! rules are described at [`RoundSpec`](tidings_actors::model::round::RoundSpec).

use tidings_actors::{
    model::round::{Change, Entry, Letter},
    ports::GitError,
};
use tidings_entity::kind::{Operation, RoundKind};

/// A path, with its entry in each tree and its bound dead letter.
pub(crate) struct PathState<'a> {
    pub(crate) path: &'a [u8],
    /// The entries of the trees that the app may hold: one tree of a sync, several of a resync.
    pub(crate) bases: &'a [Option<Entry>],
    /// The entry of the target tree; `None`: the path is not there.
    pub(crate) target: Option<Entry>,
    /// The dead letter of the path that the round binds.
    pub(crate) letter: Option<&'a Letter>,
}

/// The changes at one path: at most a delete and a create, or one of any kind.
pub(crate) type Changes = [Option<Change>; 2];

const NOTHING: Changes = [None, None];

/// Applies the rules. `gives_more` says whether the new view sends content of an entry which the old view
/// left out.
pub(crate) fn changes(
    kind: RoundKind,
    place: &PathState<'_>,
    gives_more: &dyn Fn(Entry) -> Result<bool, GitError>,
) -> Result<Changes, GitError> {
    match kind {
        RoundKind::Resync => Ok(resync(place)),
        RoundKind::Redrive if place.letter.is_none() => Ok(NOTHING),
        RoundKind::Sync | RoundKind::Replay | RoundKind::Redrive => {
            let mut changes = to_target(place, gives_more)?;
            if kind == RoundKind::Redrive {
                let replayed = place.letter.map(|letter| &letter.delivery);
                for change in changes.iter_mut().flatten() {
                    change.replay_of = replayed.cloned();
                }
            }
            Ok(changes)
        }
    }
}

/// The changes from the file that the app has to the target. With a letter the app's file is unknown: an
/// equal entry proves nothing, and a path that the target lacks is deleted.
fn to_target(
    place: &PathState<'_>,
    gives_more: &dyn Fn(Entry) -> Result<bool, GitError>,
) -> Result<Changes, GitError> {
    let (old, unknown) = match place.letter {
        None => (place.bases.first().copied().flatten(), false),
        Some(letter) => (letter.before, true),
    };
    Ok(match (old, place.target) {
        (None, None) if unknown => [Some(change(place, Operation::Delete, None, None)), None],
        (None, None) => NOTHING,
        (Some(_), None) => [Some(change(place, Operation::Delete, old, None)), None],
        (None, Some(_)) => [Some(change(place, Operation::Create, None, place.target)), None],
        (Some(had), Some(gets)) if class(had) != class(gets) => [
            Some(change(place, Operation::Delete, old, None)),
            Some(change(place, Operation::Create, None, place.target)),
        ],
        (Some(had), Some(gets)) if unknown || had != gets || gives_more(gets)? => {
            [Some(change(place, Operation::Update, old, place.target)), None]
        }
        (Some(_), Some(_)) => NOTHING,
    })
}

/// The changes of a resync at one path: a delete, and a create if the target has the path.
fn resync(place: &PathState<'_>) -> Changes {
    let old = place.bases.iter().flatten().next().copied();
    let Some(gets) = place.target else {
        let before = place.letter.and_then(|letter| letter.before);
        let is_held = old.is_some() || place.letter.is_some();
        return [is_held.then(|| change(place, Operation::Delete, old.or(before), None)), None];
    };
    let other_class = place.bases.iter().flatten().any(|had| class(*had) != class(gets));
    [
        other_class.then(|| change(place, Operation::Delete, old, None)),
        Some(change(place, Operation::Create, None, place.target)),
    ]
}

fn change(place: &PathState<'_>, operation: Operation, old: Option<Entry>, new: Option<Entry>) -> Change {
    Change { operation, path: place.path.to_vec(), old, new, replay_of: None }
}

/// File or symbolic link.
fn class(entry: Entry) -> u32 {
    entry.mode & 0o170_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use tidings_actors::model::round::DeliveryId;
    use tidings_entity::id::{DeadLetterId, ObjectId};
    use ulid::Ulid;

    /// `-` nothing, `1` a file with blob 1, `x1` the same but executable, `l1` a symbolic link.
    fn entry(word: &str) -> Option<Entry> {
        let (mode, blob) = match word.split_at(word.len() - 1) {
            (_, "-") => return None,
            ("x", blob) => (0o100_755, blob),
            ("l", blob) => (0o120_000, blob),
            (_, blob) => (0o100_644, blob),
        };
        Some(Entry { mode, blob: ObjectId::new([blob.as_bytes()[0]; 20]) })
    }

    fn letter(before: Option<Entry>) -> Letter {
        let delivery = DeliveryId::from_stored("dlv_given_up".to_owned());
        Letter { id: DeadLetterId::new(Ulid::from_parts(1, 1)), path: b"p".to_vec(), before, delivery }
    }

    fn show(entry: Option<Entry>) -> String {
        entry.map_or("-".to_owned(), |entry| {
            let mode = match entry.mode {
                0o100_755 => "x",
                0o120_000 => "l",
                _ => "",
            };
            format!("{mode}{}", char::from(entry.blob.as_bytes()[0]))
        })
    }

    /// `base ... -> target`, after a `|` what a letter remembers.
    fn check(kind: RoundKind, table: &str, expected: &Expect) {
        let mut answer = String::new();
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (trees, before) = line.split_once('|').map_or((line, None), |(a, b)| (a, Some(b.trim())));
            let (bases, target) = trees.split_once("->").expect("an arrow");
            let bases: Vec<_> = bases.split_whitespace().map(entry).collect();
            let letter = before.map(|before| letter(entry(before)));
            let place = PathState {
                path: b"p",
                bases: &bases,
                target: entry(target.trim()),
                letter: letter.as_ref(),
            };
            let changes =
                changes(kind, &place, &|entry| Ok(entry.blob.as_bytes()[0] == b'9')).expect("no reads");
            let shown: Vec<_> = changes
                .iter()
                .flatten()
                .map(|change| {
                    let replay = if change.replay_of.is_some() { " again" } else { "" };
                    format!("{} {}>{}{replay}", change.operation, show(change.old), show(change.new))
                })
                .collect();
            answer.push_str(&format!("{line}: {}\n", shown.join(", ")));
        }
        expected.assert_eq(&answer);
    }

    #[test]
    fn a_sync_goes_from_held_to_target_and_sends_the_path_of_a_letter_always() {
        check(
            RoundKind::Sync,
            "- -> -
             - -> 1
             1 -> -
             1 -> 1
             1 -> 2
             1 -> x1
             1 -> l1
             9 -> 9
             2 -> 3 | 1
             2 -> 1 | 1
             2 -> - | 1
             2 -> l3 | 1
             2 -> 3 | -
             2 -> - | -",
            &expect![[r#"
                - -> -: 
                - -> 1: create ->1
                1 -> -: delete 1>-
                1 -> 1: 
                1 -> 2: update 1>2
                1 -> x1: update 1>x1
                1 -> l1: delete 1>-, create ->l1
                9 -> 9: update 9>9
                2 -> 3 | 1: update 1>3
                2 -> 1 | 1: update 1>1
                2 -> - | 1: delete 1>-
                2 -> l3 | 1: delete 1>-, create ->l3
                2 -> 3 | -: create ->3
                2 -> - | -: delete ->-
            "#]],
        );
    }

    #[test]
    fn a_resync_deletes_what_is_gone_and_creates_the_rest() {
        check(
            RoundKind::Resync,
            "- - -> 1
             1 - -> 1
             - 2 -> -
             1 2 -> -
             1 l2 -> 1
             - - -> - | -
             - - -> - | 3
             1 - -> - | 3
             1 - -> 2 | 3",
            &expect![[r#"
                - - -> 1: create ->1
                1 - -> 1: create ->1
                - 2 -> -: delete 2>-
                1 2 -> -: delete 1>-
                1 l2 -> 1: delete 1>-, create ->1
                - - -> - | -: delete ->-
                - - -> - | 3: delete 3>-
                1 - -> - | 3: delete 1>-
                1 - -> 2 | 3: create ->2
            "#]],
        );
    }

    #[test]
    fn a_redrive_touches_only_letters() {
        check(
            RoundKind::Redrive,
            "1 -> 2
             2 -> 2 | 1
             2 -> 2 | -
             - -> - | 1
             - -> - | -
             2 -> 2 | 2",
            &expect![[r#"
                1 -> 2: 
                2 -> 2 | 1: update 1>2 again
                2 -> 2 | -: create ->2 again
                - -> - | 1: delete 1>- again
                - -> - | -: delete ->- again
                2 -> 2 | 2: update 2>2 again
            "#]],
        );
    }
}
