//! The list of a round before it begins: its counts and digest, and the dead letters that it binds.

use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{LetterStatus, RoundKind},
};

use super::OpeningError;
use crate::{
    context::Context,
    model::round::{Letter, Plan, RoundSpec},
    ports::{Extent, FetchOrder, GitError, LANE_LETTERS, LaneSnapshot, LetterPick, Remote, Seek},
    supervision::tasks::in_time,
};

/// Changes of a sync round up to which its letters are looked up by path; beyond, all are read.
const LOOKED_UP_MAX: u64 = 100_000;

/// A round's list, with the letters that it binds.
pub(super) async fn planned(
    context: &Context,
    lane: &LaneSnapshot,
    spec: RoundSpec,
) -> Result<(RoundSpec, Plan), OpeningError> {
    let candidates = candidates(context, lane, &spec).await?;
    let plan = plan(context, &lane.app, &lane.remote, &spec, &candidates).await?;
    Ok((spec, plan))
}

/// The dead letters that a round may bind, sorted by path. A snapshot holds a thousand. If the cursor has
/// more, only letters at paths that differ between the two trees of a sync round are read, as long as that
/// list is short; otherwise all letters are read.
async fn candidates(
    context: &Context,
    lane: &LaneSnapshot,
    spec: &RoundSpec,
) -> Result<Vec<Letter>, OpeningError> {
    let redrive = spec.kind == RoundKind::Redrive;
    if redrive || !lane.more_letters {
        let wanted =
            lane.letters.iter().filter(|(_, status)| !redrive || *status == LetterStatus::RedriveRequested);
        return Ok(wanted.map(|(letter, _)| letter.clone()).collect());
    }
    let mut letters = Vec::new();
    if spec.kind == RoundKind::Sync {
        let total = plan(context, &lane.app, &lane.remote, spec, &[]).await?.summary.total();
        if total <= LOOKED_UP_MAX {
            let mut seek = Seek::Position(0);
            loop {
                let changes = context.git.window(&lane.remote, spec, &seek, LANE_LETTERS).await?;
                let Some(last) = changes.last().cloned() else { break };
                seek = Seek::After(last);
                let paths = LetterPick::Paths(changes.into_iter().map(|change| change.path).collect());
                letters.extend(in_time(context.store.open_letters(&lane.cursor, &paths)).await?);
            }
            return Ok(by_path(letters));
        }
    }
    let mut after = None;
    loop {
        let pick = LetterPick::After(after);
        let some = in_time(context.store.open_letters(&lane.cursor, &pick)).await?;
        after = some.last().map(|(letter, _)| letter.path.clone());
        let is_last = some.len() < LANE_LETTERS;
        letters.extend(some);
        if is_last {
            return Ok(by_path(letters));
        }
    }
}

/// A path may be there twice: a changed kind of file is a delete and a create.
fn by_path(letters: Vec<(Letter, LetterStatus)>) -> Vec<Letter> {
    let mut letters: Vec<Letter> = letters.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_by(|one, other| one.path.cmp(&other.path));
    letters.dedup_by(|one, other| one.path == other.path);
    letters
}

/// Plans the round when the app has its turn, and fetches objects that the mirror lacks by id: the mirror is
/// a cache and may be lost.
pub(super) async fn plan(
    context: &Context,
    app: &AppId,
    remote: &Remote,
    spec: &RoundSpec,
    candidates: &[Letter],
) -> Result<Plan, OpeningError> {
    let planned = context.in_read_turn(app, context.git.plan(remote, spec, candidates)).await;
    match planned {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            // A resync is planned from its bases: a held tree that cannot be fetched must not stop it.
            let held = spec.held.iter().filter(|_| spec.kind != RoundKind::Resync);
            let ends = || held.clone().chain(&spec.target).chain(&spec.bases);
            let mut commits: Vec<ObjectId> = ends().map(|end| end.commit).collect();
            commits.sort_unstable();
            commits.dedup();
            let is_narrow = ends().all(|end| end.view.is_narrow());
            let extent = if is_narrow { Extent::Trees } else { Extent::Whole };
            for (at, commit) in commits.iter().enumerate() {
                let haves = commits[..at].to_vec();
                fetch(context, remote, FetchOrder { wants: vec![*commit], haves, depth: 1, extent }).await?;
            }
            Ok(context.in_read_turn(app, context.git.plan(remote, spec, candidates)).await?)
        }
        other => Ok(other?),
    }
}

/// Fetches. Only two definitive refusals in a row make an object unobtainable.
pub async fn fetch(context: &Context, remote: &Remote, order: FetchOrder) -> Result<(), GitError> {
    match context.git.fetch(remote, &order).await {
        Err(GitError::Unobtainable(_)) => context.git.fetch(remote, &order).await.map(drop),
        other => other.map(drop),
    }
}
