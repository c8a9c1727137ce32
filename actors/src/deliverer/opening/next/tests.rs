//! What comes after a closed round.

use std::path::PathBuf;

use expect_test::{Expect, expect};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RepositoryId, SourceId, WatchId},
    kind::{BranchGone, HistoryMode},
};
use ulid::Ulid;

use super::*;
use crate::{
    model::round::{DeliveryId, Letter},
    model::view::View,
    ports::{HeadAttempts, Location, Remote, RepositoryFacts, Streak},
    time::Timestamp,
};

const OLD: ObjectId = ObjectId::new([1; 20]);
const NEW: ObjectId = ObjectId::new([2; 20]);

fn ulid() -> Ulid {
    Ulid::from_parts(1, 1)
}

fn lane() -> LaneSnapshot {
    LaneSnapshot {
        cursor: CursorId::new(ulid()),
        watch: WatchId::new(ulid()),
        app: AppId::new(ulid()),
        sink: None,
        source: SourceId::new(ulid()),
        remote: Remote {
            repository: RepositoryId::new(ulid()),
            location: Location::Local(PathBuf::from("/r")),
            credential: None,
            apps: Vec::new(),
        },
        facts: RepositoryFacts {
            repository_id: WatchId::new(ulid()),
            github_url: String::new(),
            owner: String::new(),
            name: String::new(),
        },
        branch: "refs/heads/main".into(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        watch_state: WatchState::Active,
        state: CursorState::Active,
        reason: None,
        held: Some((OLD, View::default())),
        view: View::default(),
        head: Some(OLD),
        head_fault: None,
        last_round: 1,
        open: None,
        last_was_redrive: false,
        resync: None,
        replay: None,
        resync_bases: Vec::new(),
        letters: Vec::new(),
        more_letters: false,
        streak: Streak::default(),
        acknowledged: true,
        head_attempts: HeadAttempts::default(),
        deliver_after: Timestamp(0),
        announced: false,
        untouched: true,
        is_new: false,
        above: Vec::new(),
        guard_waived: false,
        skip_head: false,
        has_tasks: false,
        cancel_open: false,
        created_at: Timestamp(0),
    }
}

fn letter(status: LetterStatus) -> (Letter, LetterStatus) {
    let letter = Letter {
        id: DeadLetterId::new(ulid()),
        path: b"a".to_vec(),
        before: None,
        delivery: DeliveryId::from_stored(String::new()),
    };
    (letter, status)
}

fn check(edit: impl FnOnce(&mut LaneSnapshot), expected: Expect) {
    let mut lane = lane();
    edit(&mut lane);
    let named = |target: Option<ObjectId>| {
        target.map_or("to nothing".to_owned(), |commit| commit.as_bytes()[0].to_string())
    };
    let next = match next_round(&lane) {
        Next::Nothing => "nothing".to_owned(),
        Next::Unfit(reason) => format!("unfit: {reason}"),
        Next::Sync(target) => format!("sync {}", named(target)),
        Next::Resync { target, complete } => format!("resync {} complete={complete}", named(target)),
        Next::Replay(from) => format!("replay {}", named(Some(from.commit))),
        Next::Redrive => "redrive".to_owned(),
    };
    expected.assert_eq(&next);
}

#[test]
fn a_moved_head_a_first_head_and_a_changed_view_are_rounds() {
    check(|_| {}, expect!["nothing"]);
    check(|lane| lane.head = Some(NEW), expect!["sync 2"]);
    check(|lane| lane.held = None, expect!["sync 1"]);
    check(
        |lane| {
            let content = tidings_entity::kind::ContentRule::None;
            lane.view = View::new(vec![], vec![], false, content, 0).expect("valid");
        },
        expect!["sync 1"],
    );
}

#[test]
fn a_head_that_cannot_be_had_is_no_round_and_holds_no_redrive_up() {
    let unfit = |edit: fn(&mut LaneSnapshot)| {
        move |lane: &mut LaneSnapshot| {
            (lane.head, lane.head_fault) = (Some(NEW), Some("its tree is malformed".to_owned()));
            edit(lane);
        }
    };
    check(unfit(|_| {}), expect!["unfit: its tree is malformed"]);
    check(unfit(|lane| lane.resync = Some(false)), expect!["unfit: its tree is malformed"]);
    check(unfit(|lane| lane.head = Some(OLD)), expect!["nothing"]);
    check(
        unfit(|lane| {
            (lane.letters, lane.last_was_redrive) = (vec![letter(LetterStatus::RedriveRequested)], true);
        }),
        expect!["redrive"],
    );
}

#[test]
fn a_replay_goes_before_what_is_new_and_after_a_resync() {
    let from = Some(TreeEnd { commit: NEW, view: View::default() });
    let asked = |edit: fn(&mut LaneSnapshot)| {
        let from = from.clone();
        move |lane: &mut LaneSnapshot| {
            lane.replay = from;
            edit(lane);
        }
    };
    check(asked(|_| {}), expect!["replay 2"]);
    check(asked(|lane| lane.head = Some(NEW)), expect!["replay 2"]);
    check(asked(|lane| lane.letters = vec![letter(LetterStatus::RedriveRequested)]), expect!["replay 2"]);
    check(asked(|lane| lane.head = None), expect!["replay 2"]);
    check(asked(|lane| lane.held = None), expect!["replay 2"]);
    check(
        asked(|lane| {
            vanish(lane);
            lane.held = None;
        }),
        expect!["replay 2"],
    );
    check(asked(|lane| lane.resync = Some(false)), expect!["resync 1 complete=false"]);
    check(asked(|lane| lane.watch_state = WatchState::Paused), expect!["nothing"]);
    check(asked(|lane| lane.state = CursorState::Empty), expect!["nothing"]);
}

#[test]
fn a_changed_view_goes_before_what_is_sent_once_more() {
    let narrowed = |edit: fn(&mut LaneSnapshot)| {
        move |lane: &mut LaneSnapshot| {
            let content = tidings_entity::kind::ContentRule::Inline;
            lane.view = View::new(vec![], vec!["secret".into()], false, content, 0).expect("valid");
            lane.letters = vec![letter(LetterStatus::RedriveRequested)];
            lane.replay = Some(TreeEnd { commit: NEW, view: View::default() });
            edit(lane);
        }
    };
    check(narrowed(|_| {}), expect!["sync 1"]);
    check(narrowed(|lane| lane.head = Some(NEW)), expect!["sync 2"]);
    check(narrowed(|lane| lane.head = None), expect!["nothing"]);
    check(narrowed(|lane| (lane.head, lane.on_branch_gone) = (None, BranchGone::Delete)), expect!["nothing"]);
    check(narrowed(|lane| (lane.head, lane.state) = (None, CursorState::BranchMissing)), expect!["sync 1"]);
    check(narrowed(|lane| lane.head_fault = Some("it is gone".into())), expect!["unfit: it is gone"]);
}

#[test]
fn a_missing_branch_and_a_paused_watch_rest() {
    check(|lane| lane.head = None, expect!["nothing"]);
    check(
        |lane| {
            lane.head = Some(NEW);
            lane.watch_state = WatchState::Paused;
        },
        expect!["nothing"],
    );
    check(
        |lane| {
            lane.head = None;
            lane.resync = Some(false);
        },
        expect!["nothing"],
    );
}

#[test]
fn a_resync_goes_before_everything_else() {
    check(
        |lane| {
            lane.head = Some(NEW);
            lane.resync = Some(true);
            lane.letters = vec![letter(LetterStatus::RedriveRequested)];
        },
        expect!["resync 2 complete=true"],
    );
}

#[test]
fn redrives_take_turns_with_sync_rounds() {
    let waiting = |lane: &mut LaneSnapshot| {
        lane.head = Some(NEW);
        lane.letters = vec![letter(LetterStatus::RedriveRequested)];
    };
    check(waiting, expect!["redrive"]);
    check(
        |lane| {
            waiting(lane);
            lane.last_was_redrive = true;
        },
        expect!["sync 2"],
    );
    check(|lane| lane.letters = vec![letter(LetterStatus::RedriveRequested)], expect!["redrive"]);
    check(|lane| lane.letters = vec![letter(LetterStatus::Open)], expect!["nothing"]);
}

/// A branch of a pattern whose absence was confirmed.
fn vanish(lane: &mut LaneSnapshot) {
    lane.head = None;
    lane.state = CursorState::BranchMissing;
    lane.on_branch_gone = BranchGone::Delete;
}

#[test]
fn a_vanished_branch_leads_to_nothing_once_unless_its_files_stay() {
    check(vanish, expect!["sync to nothing"]);
    check(
        |lane| {
            vanish(lane);
            lane.held = None;
        },
        expect!["nothing"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.on_branch_gone = BranchGone::Keep;
        },
        expect!["nothing"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.state = CursorState::Active;
        },
        expect!["nothing"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.resync = Some(true);
        },
        expect!["resync to nothing complete=true"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.on_branch_gone = BranchGone::Keep;
            lane.resync = Some(false);
        },
        expect!["resync 1 complete=false"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.on_branch_gone = BranchGone::Keep;
            lane.resync = Some(false);
            lane.held = None;
        },
        expect!["nothing"],
    );
    check(
        |lane| {
            vanish(lane);
            lane.head = Some(NEW);
            lane.held = None;
        },
        expect!["sync 2"],
    );
}

#[test]
fn what_was_given_up_of_a_vanished_branch_can_still_be_sent_again() {
    check(
        |lane| {
            vanish(lane);
            lane.held = None;
            lane.letters = vec![letter(LetterStatus::RedriveRequested)];
        },
        expect!["redrive"],
    );
}
