//! Resumes a round that was begun earlier: its list is computed again and compared with the digest.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tidings_entity::{
    id::{DeadLetterId, ObjectId},
    kind::RoundKind,
};
use tracing::{info, warn};

use super::{
    OpenLane, Opening, OpeningError, UNFIT_WAIT,
    blocks::{Shown, block},
    planning::plan,
};
use crate::{
    context::Context,
    model::round::{Round, RoundSpec, Summary},
    ownership::shards::ShardHold,
    ports::{GitError, LaneSnapshot, Remote, Seek},
    supervision::tasks::in_time,
};

/// Deletes, and creates, of a round up to which renames are hinted.
const RENAMES_MAX: u64 = 10_000;

/// Resumes an open round, or blocks its cursor with the reason: a tree of the round exceeds a limit that was
/// lowered since, or cannot be read. The round stays as it is; it continues when a later look succeeds, and a
/// resync ends it.
pub(super) async fn resume_or_block(
    context: &Context,
    lane: LaneSnapshot,
    hold: ShardHold,
) -> Result<Opening, OpeningError> {
    let (shown, number) = (Shown::of(&lane), lane.open.as_ref().map_or(0, |round| round.number));
    match resume(context, lane, hold).await {
        Err(OpeningError::Git(reason)) if reason.is_of_the_object() => {
            let said = format!("round {number} cannot go on: {reason}; a resync is the way out");
            block(context, &shown, &said).await?;
            Ok(Opening::Later(UNFIT_WAIT))
        }
        other => other,
    }
}

/// Resumes an open round: fetches its trees and checks that its list is still the same.
async fn resume(context: &Context, mut lane: LaneSnapshot, hold: ShardHold) -> Result<Opening, OpeningError> {
    let Some(round) = lane.open.take() else { return Ok(Opening::Idle) };
    if !round.is_known() {
        let reason = format!("round {} was begun under rules {}", round.number, round.rules);
        in_time(context.store.request_cursor_resync(&lane.cursor, false, &reason)).await?;
        return Ok(Opening::Again);
    }
    let spec = RoundSpec { letters: Vec::new(), ..round.spec.clone() };
    let plan = match plan(context, &lane.app, &lane.remote, &spec, &round.spec.letters).await {
        Err(OpeningError::Git(GitError::Unobtainable(_))) => {
            let reason = "a tree of the open round is neither in the mirror nor at the Git host";
            warn!(round.number = round.number, "{reason}: a complete resync follows");
            in_time(context.store.request_cursor_resync(&lane.cursor, true, reason)).await?;
            return Ok(Opening::Again);
        }
        other => other?,
    };
    if lane.cancel_open && round.spec.kind == RoundKind::Redrive {
        return cancel(context, &lane, &round, plan.summary == round.summary).await;
    }
    if plan.summary != round.summary {
        let reason = format!(
            "the list of round {} is not the one that was begun; a resync is the way out",
            round.number
        );
        warn!(round.number = round.number, "{reason}: {:?} instead of {:?}", plan.summary, round.summary);
        in_time(context.store.set_blocked(&lane.cursor, Some(&reason))).await?;
        return Ok(Opening::Idle);
    }
    let commit = match &round.spec.target {
        Some(target) => Some(Arc::new(context.git.commit(&lane.remote, target.commit).await?)),
        None => None,
    };
    let renames = renames(context, &lane.remote, &round).await?;
    let round = Arc::new(round);
    let store = context.store.clone();
    Ok(Opening::Open(Box::new(OpenLane { snapshot: lane, round, commit, renames, place: None, store, hold })))
}

/// Ends a redrive early. A letter counts as sent when no change of its path is still to come; if the list
/// differs from the list at the beginning, no letter counts as sent.
async fn cancel(
    context: &Context,
    lane: &LaneSnapshot,
    round: &Round,
    known: bool,
) -> Result<Opening, OpeningError> {
    let letters = round.spec.letters.iter().filter(|_| known);
    let most = usize::try_from(round.summary.total()).unwrap_or(usize::MAX);
    let from = Seek::Position(round.position);
    let changes =
        if known { context.git.window(&lane.remote, &round.spec, &from, most).await? } else { Vec::new() };
    let is_above = |position: &u64| lane.above.iter().any(|range| range.contains(position));
    let ahead = changes.into_iter().zip(round.position..).filter(|(_, position)| !is_above(position));
    let ahead: HashSet<Vec<u8>> = ahead.map(|(change, _)| change.path).collect();
    let reached: Vec<DeadLetterId> =
        letters.filter(|letter| !ahead.contains(&letter.path)).map(|letter| letter.id.clone()).collect();
    info!(
        cursor.id = %lane.cursor, round.number = round.number,
        "round {} is cancelled: {} of {} letters were reached",
        round.number,
        reached.len(),
        round.spec.letters.len()
    );
    in_time(context.store.end_redrive(&lane.cursor, round.number, &reached, context.now())).await?;
    Ok(Opening::Again)
}

/// The deleted paths by blob, while deletes and creates are few enough for one list in memory.
pub(crate) async fn renames(
    context: &Context,
    remote: &Remote,
    round: &Round,
) -> Result<HashMap<ObjectId, Vec<u8>>, GitError> {
    if !hints_renames(&round.summary) {
        return Ok(HashMap::new());
    }
    let deletes = usize::try_from(round.summary.deletes).unwrap_or(0);
    let changes = context.git.window(remote, &round.spec, &Seek::Position(0), deletes).await?;
    let mut renames = HashMap::new();
    for change in changes {
        if let Some(old) = change.old {
            renames.entry(old.blob).or_insert(change.path);
        }
    }
    Ok(renames)
}

/// Whether a round says of a create where its content was deleted.
fn hints_renames(summary: &Summary) -> bool {
    let few = |count: u64| (1..=RENAMES_MAX).contains(&count);
    few(summary.deletes) && few(summary.creates)
}

#[cfg(test)]
mod tests {
    use tidings_entity::id::Sha256Hash;

    use super::*;

    #[test]
    fn renames_are_hinted_while_one_list_in_memory_can_hold_them() {
        let digest = Sha256Hash::of(b"");
        for (deletes, creates, hinted) in [
            (0, 1, false),
            (1, 0, false),
            (1, 1, true),
            (10_000, 10_000, true),
            (10_001, 1, false),
            (1, 10_001, false),
        ] {
            let summary = Summary { deletes, creates, updates: 50_000, digest };
            assert_eq!(hints_renames(&summary), hinted, "{deletes} deletes, {creates} creates");
        }
    }
}
