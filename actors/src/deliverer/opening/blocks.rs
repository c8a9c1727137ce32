//! Blocks a cursor whose next round cannot be delivered, and shows the app the reason until it can.

use std::fmt;

use tidings_entity::{
    id::{CursorId, ObjectId},
    kind::CursorState,
};
use tracing::warn;

use super::{Opening, OpeningError, UNFIT_WAIT, fetch};
use crate::{
    context::Context,
    ports::{Extent, FetchOrder, GitError, LaneSnapshot},
    supervision::tasks::in_time,
};

/// The tree that the app holds cannot be fetched any more: everything is sent again. But if the head cannot
/// be fetched either, the repository may have lost its objects only for a while, and the lane waits.
pub(super) async fn lose_held(
    context: &Context,
    lane: &LaneSnapshot,
    commit: ObjectId,
    target: Option<ObjectId>,
) -> Result<Option<Opening>, OpeningError> {
    if let Some(reason) = obstacle(context, lane, target).await? {
        block(context, &Shown::of(lane), &cannot_be_delivered(lane, &reason)).await?;
        return Ok(Some(Opening::Later(UNFIT_WAIT)));
    }
    warn!(commit = %commit, "the held commit {commit} is neither in the mirror nor at the Git host: a \
         complete resync follows");
    let reason = "the held commit is neither in the mirror nor at the Git host";
    in_time(context.store.request_cursor_resync(&lane.cursor, true, reason)).await?;
    Ok(None)
}

/// The reason why the head cannot be fetched either, if so.
async fn obstacle(
    context: &Context,
    lane: &LaneSnapshot,
    target: Option<ObjectId>,
) -> Result<Option<GitError>, OpeningError> {
    let Some(target) = target else { return Ok(None) };
    let order = FetchOrder { wants: vec![target], haves: Vec::new(), depth: 1, extent: Extent::Trees };
    match fetch(context, &lane.remote, order).await {
        Ok(()) => Ok(None),
        Err(reason) if reason.is_divisible() => Ok(Some(reason)),
        Err(reason) => Err(reason.into()),
    }
}

pub(super) fn cannot_be_delivered(lane: &LaneSnapshot, reason: &impl fmt::Display) -> String {
    format!("{} cannot be delivered: {reason}", lane.branch)
}

pub(super) fn is_held(lane: &LaneSnapshot, commit: ObjectId) -> bool {
    lane.resync_bases.iter().any(|base| base.commit == commit)
        || lane.held.as_ref().is_some_and(|(held, _)| *held == commit)
}

/// The state of a lane as its cursor shows it.
pub(super) struct Shown {
    cursor: CursorId,
    state: CursorState,
    reason: Option<String>,
}

impl Shown {
    pub(super) fn of(lane: &LaneSnapshot) -> Self {
        Self { cursor: lane.cursor.clone(), state: lane.state, reason: lane.reason.clone() }
    }
}

/// Blocks the cursor and shows the app the reason: the head of the branch cannot be delivered, however often
/// it is tried. The next head, or another check of this one, unblocks.
pub(super) async fn block(context: &Context, shown: &Shown, said: &str) -> Result<(), OpeningError> {
    if shown.state != CursorState::Blocked || shown.reason.as_deref() != Some(said) {
        warn!(cursor.id = %shown.cursor, "{said}");
        in_time(context.store.set_blocked(&shown.cursor, Some(said))).await?;
    }
    Ok(())
}

/// Ends a block for a reason that holds no more: an old head, a list that differed, a tree that could not be
/// read.
pub(super) async fn unblock(context: &Context, lane: &LaneSnapshot) -> Result<(), OpeningError> {
    if lane.state == CursorState::Blocked && !lane.streak.blocks(lane.acknowledged) {
        in_time(context.store.set_blocked(&lane.cursor, None)).await?;
    }
    Ok(())
}
