//! The work of upkeep on mirrors, one after another: remove, rebuild, make room, read again. A failure for
//! one mirror does not stop the others.

use std::time::Duration;

use tidings_entity::id::{ObjectId, RepositoryId};
use tracing::{error, info, warn};

use super::decisions::{is_due, is_over, is_short, victims};
use crate::{
    context::Context,
    ports::{GitError, Keep, MirrorFacts, Share, StoreError},
    supervision::{hints, tasks::in_time},
    time::Timestamp,
};

/// The longest work on one mirror; longer work is cancelled and begins again at the next look.
const WORK_MAX: Duration = Duration::from_secs(1_800);

/// How long other replicas must have worked on a repository before its mirror here is removed: shards that
/// return after a restart find their mirrors again.
const AWAY_MAX: Duration = Duration::from_secs(3_600);

/// The reason why upkeep stopped; it begins again after its interval.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// An operation on a mirror failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A call of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work took longer than it may.
    #[error("work on a mirror took longer than {WORK_MAX:?}")]
    Late,
}

/// Whether mirrors have room after a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room for more fetches, or everything was done to make room.
    Enough,
    /// A mirror must drop its contents, which is decided over all mirrors; or a shared mirror did, and the
    /// replaced files are not removed yet.
    Short,
}

/// Removes leftovers of crashes in all mirrors.
pub(super) async fn sweep(context: Context) -> Result<Room, KeepError> {
    timed(context.git.sweep(None)).await.map(|()| Room::Enough)
}

/// Looks at all mirrors, reading a share of them again, and makes room if there is too little.
pub(super) async fn keep_all(context: Context, share: Share) -> Result<Room, KeepError> {
    if context.policy.mirrors_shared {
        timed(context.git.sweep(None)).await?;
    }
    let mut kept = Vec::new();
    for facts in timed(context.git.mirrors()).await? {
        let repository = facts.repository.clone();
        match keep(&context, facts, Some(share)).await {
            Ok(mirror) => kept.extend(mirror),
            Err(reason) => tell(&repository, &reason),
        }
    }
    make_room(&context, &kept).await
}

/// Looks at one mirror that grew, or whose repository lost its last watch.
pub(super) async fn keep_one(context: Context, repository: RepositoryId) -> Result<Room, KeepError> {
    if let Some(facts) = timed(context.git.mirror(&repository)).await? {
        keep(&context, facts, None).await?;
    }
    let storage = timed(context.git.storage()).await?;
    Ok(if is_short(&storage, &context.policy) { Room::Short } else { Room::Enough })
}

fn tell(repository: &RepositoryId, reason: &KeepError) {
    warn!(repository.id = %repository, "the mirror of {repository} could not be kept: {reason}");
}

async fn timed<T>(work: impl Future<Output = Result<T, GitError>>) -> Result<T, KeepError> {
    let done = tokio::time::timeout(WORK_MAX, work).await;
    Ok(done.map_err(|_| KeepError::Late)??)
}

/// The commits that a mirror must keep, and when its repository last changed; `None`: no watch follows the
/// repository.
async fn needs(context: &Context, repository: &RepositoryId) -> Result<Option<(Keep, Timestamp)>, KeepError> {
    let sources = in_time(context.store.sources(repository)).await?;
    let Some(last_change) = sources.iter().map(|source| source.last_change).max() else { return Ok(None) };
    // Heads are kept as well: the next round begins with a head, and a poll would fetch it again.
    let mut commits: Vec<ObjectId> = in_time(context.store.pins(repository)).await?;
    commits.extend(sources.iter().flat_map(|source| &source.haves));
    commits.sort_unstable();
    commits.dedup();
    let chains = sources.iter().any(|source| source.every);
    Ok(Some((Keep { commits, chains, blobs: true }, last_change)))
}

/// Does the upkeep of one mirror. Returns its facts afterwards; `None`: the mirror was removed, or belongs to
/// another replica.
async fn keep(
    context: &Context,
    mut facts: MirrorFacts,
    share: Option<Share>,
) -> Result<Option<(MirrorFacts, Timestamp)>, KeepError> {
    let repository = facts.repository.clone();
    if context.policy.mirrors_shared {
        // The replica that works on the repository looks after its mirror.
        if !context.shards.owns(&repository) {
            return Ok(None);
        }
        // Replaced files stay for a while for readers, and are removed here.
        timed(context.git.sweep(Some(&repository))).await?;
    } else if context.shards.away_for(&repository).is_some_and(|away| away >= AWAY_MAX) {
        timed(context.git.remove_mirror(&repository)).await?;
        info!(repository.id = %repository, "the mirror of {repository} was removed: another replica works on \
            it");
        return Ok(None);
    }
    let Some((keep, last_change)) = needs(context, &repository).await? else {
        timed(context.git.remove_mirror(&repository)).await?;
        info!(repository.id = %repository, "the mirror of {repository} was removed: nobody watches it");
        return Ok(None);
    };
    if is_due(&facts, keep.commits.len(), context.policy.packs_max) || is_over(&facts, &context.policy) {
        facts = rebuild(context, &facts, &keep).await?;
    }
    if is_over(&facts, &context.policy) {
        facts = rebuild(context, &facts, &Keep { blobs: false, ..keep }).await?;
    }
    if is_over(&facts, &context.policy) {
        let bytes = facts.bytes;
        error!(repository.id = %repository, bytes, "the mirror of {repository} takes {bytes} bytes without \
            any content, more than git.mirror_max_bytes");
    }
    if let Some(share) = share
        && !timed(context.git.scrub(&repository, share)).await?
    {
        warn!(repository.id = %repository, "the mirror of {repository} was damaged and is fetched again");
        hints::poke(context, &repository).await;
    }
    Ok(Some((facts, last_change)))
}

async fn rebuild(context: &Context, facts: &MirrorFacts, keep: &Keep) -> Result<MirrorFacts, KeepError> {
    let (repository, before) = (&facts.repository, facts.bytes);
    let rebuilt = timed(context.git.compact(repository, keep)).await?;
    let after = rebuilt.bytes;
    let what = if keep.blobs { "rebuilt" } else { "freed of its contents" };
    info!(repository.id = %repository, "the mirror of {repository} was {what}: {before} bytes became \
        {after}");
    Ok(rebuilt)
}

/// Lets mirrors drop their contents while room is short; if mirrors are shared, only one.
async fn make_room(context: &Context, kept: &[(MirrorFacts, Timestamp)]) -> Result<Room, KeepError> {
    let mut victims = victims(kept).into_iter();
    loop {
        let storage = timed(context.git.storage()).await?;
        if !is_short(&storage, &context.policy) {
            return Ok(Room::Enough);
        }
        let Some(victim) = victims.next() else {
            let bytes = storage.mirror_bytes;
            if context.policy.mirrors_shared {
                warn!(
                    bytes,
                    "there is too little room for mirrors, and none is left here that could make some"
                );
            } else {
                error!(bytes, "mirrors take {bytes} bytes without any content, and there is too little room");
            }
            return Ok(Room::Enough);
        };
        if let Err(reason) = evict(context, &victim).await {
            tell(&victim, &reason);
        }
        if context.policy.mirrors_shared {
            // Replaced files are removed later, when no process reads them any more: that may make enough
            // room.
            return Ok(Room::Short);
        }
    }
}

async fn evict(context: &Context, repository: &RepositoryId) -> Result<(), KeepError> {
    let (Some(facts), Some((keep, _))) =
        (timed(context.git.mirror(repository)).await?, needs(context, repository).await?)
    else {
        return Ok(());
    };
    rebuild(context, &facts, &Keep { blobs: false, ..keep }).await.map(drop)
}
