//! Decides the next round of a closed lane, pure.

use tidings_entity::{
    id::ObjectId,
    kind::{CursorState, LetterStatus, WatchState},
};

use crate::{model::follow::goes, model::round::TreeEnd, ports::LaneSnapshot};

/// The next round of a lane, or the reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// No round: the app holds the head.
    Nothing,
    /// No round, because the commit that the branch names cannot be fetched or read; with the reason.
    Unfit(String),
    /// From `held` to the head (or, in `every` mode, a commit on the way), or to nothing.
    Sync(Option<ObjectId>),
    /// Every file of the target again.
    Resync {
        /// The commit to bring the app to; `None`: no file at all.
        target: Option<ObjectId>,
        /// Whether the app must drop each file that the round does not name.
        complete: bool,
    },
    /// A replay: the changes since this tree are sent again.
    Replay(TreeEnd),
    /// A round that sends dead letters again.
    Redrive,
}

/// Decides which round follows a closed one.
#[must_use]
pub fn next_round(lane: &LaneSnapshot) -> Next {
    if lane.watch_state == WatchState::Paused || lane.state == CursorState::Empty {
        return Next::Nothing;
    }
    let goes = lane.head.is_none() && goes(lane.state, lane.on_branch_gone);
    if let Some(complete) = lane.resync {
        // The lane waits for a head that can be fetched: no other round may come first.
        return match (&lane.head_fault, lane.head, &lane.held) {
            (Some(fault), ..) => Next::Unfit(fault.clone()),
            (None, Some(head), _) => Next::Resync { target: Some(head), complete },
            (None, None, _) if goes => Next::Resync { target: None, complete },
            // The files of a branch that is gone stay, and the app gets them again.
            (None, None, Some((held, _))) if lane.state == CursorState::BranchMissing => {
                Next::Resync { target: Some(*held), complete }
            }
            (None, None, _) => Next::Nothing,
        };
    }
    // A redrive could send files that the new view leaves out: a sync round applies the view first.
    if let Some((held, _)) = lane.held.as_ref().filter(|(_, view)| *view != lane.view) {
        return match (&lane.head_fault, lane.head) {
            (Some(fault), Some(_)) => Next::Unfit(fault.clone()),
            (None, Some(head)) => Next::Sync(Some(head)),
            (_, None) if goes => Next::Sync(None),
            // The files of a branch that is gone stay, and the view applies to them.
            (_, None) if lane.state == CursorState::BranchMissing => Next::Sync(Some(*held)),
            (_, None) => Next::Nothing,
        };
    }
    // Also where nothing is held: the files of the branch may have gone since the replay was asked for, and
    // an app that went back has the files of the earlier tree.
    if let Some(from) = &lane.replay {
        return Next::Replay(from.clone());
    }
    let redrive = lane.letters.iter().any(|(_, status)| *status == LetterStatus::RedriveRequested);
    let is_new = |head: &ObjectId| lane.held.as_ref().is_none_or(|(held, _)| held != head);
    let to_nothing = (goes && lane.held.is_some()).then_some(None);
    let sync = lane.head.filter(is_new).map(Some).or(to_nothing);
    let fault = lane.head_fault.as_ref().filter(|_| sync.is_some());
    match (sync, redrive, fault) {
        (_, true, Some(_)) => Next::Redrive,
        (_, false, Some(fault)) => Next::Unfit(fault.clone()),
        (Some(target), true, None) if lane.last_was_redrive => Next::Sync(target),
        (_, true, None) => Next::Redrive,
        (Some(target), false, None) => Next::Sync(target),
        (None, false, None) => Next::Nothing,
    }
}

#[cfg(test)]
mod tests;
