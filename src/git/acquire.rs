//! Making objects present in a mirror: look what is here, ask the host for the rest, and put
//! right what is wrong on the way. A host that refuses what we say we have is asked again without
//! it; a damaged mirror is begun anew.

use std::{collections::BTreeSet, sync::Arc};

use tidings_actors::{
    ports::{FetchOrder, FetchReport, GitError, Walk},
    secret::Secret,
};
use tidings_entity::id::ObjectId;
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking};
use url::Url;

use super::{
    Host, closure,
    fetch::{self, FetchFailure, Request},
    history::{Chain, chain},
    limits::{Cancel, Limits},
    mirror::Mirror,
    objects::{Kind, Objects},
    receive::Expected,
};
use crate::settings::git::GitSettings;

/// How deep the first step behind a head goes; each next one doubles it.
const FIRST_DEPTH: u32 = 50;
/// No more lines of the list of commits without parents are said than this; more of them than
/// this in a mirror means that compacting is overdue.
const SHALLOW_SAID: usize = 1_000;

/// A repository of a host, and its mirror.
pub(super) struct Acquire<'a> {
    pub(super) host: &'a Host,
    pub(super) settings: &'a Arc<GitSettings>,
    pub(super) url: &'a Url,
    pub(super) credential: Option<&'a Secret>,
    pub(super) mirror: &'a Arc<Mirror>,
}

type Turn = Arc<OwnedMutexGuard<()>>;

/// What is here and what is not.
struct Survey {
    missing: Vec<ObjectId>,
    haves: Vec<ObjectId>,
    shallow: Vec<ObjectId>,
}

impl Acquire<'_> {
    /// Makes what an order wants present.
    pub(super) async fn fetch(&self, order: &FetchOrder) -> Result<FetchReport, GitError> {
        let turn = self.mirror.turn().await;
        self.healing(&turn, order, false).await
    }

    /// Walks first parents from `head` to `held`, deepening where it must.
    pub(super) async fn walk(&self, head: ObjectId, held: ObjectId, limit: u32) -> Result<Walk, GitError> {
        let (mut depth, mut before) = (FIRST_DEPTH, None);
        loop {
            let reached = match self.chain(head, held, limit).await? {
                Chain::Done(walk) => return Ok(walk),
                Chain::Ends { reached } => reached,
            };
            // A step that brought nothing: the host itself knows no more.
            if before == Some(reached) {
                return Ok(Walk::Rewritten);
            }
            before = Some(reached);
            while depth <= reached {
                depth = depth.saturating_mul(2);
            }
            let turn = self.mirror.turn().await;
            let order =
                FetchOrder { wants: vec![head], haves: vec![held, head], depth: depth.min(limit.max(1)) };
            self.healing(&turn, &order, true).await?;
        }
    }

    async fn chain(&self, head: ObjectId, held: ObjectId, limit: u32) -> Result<Chain, GitError> {
        let mirror = Arc::clone(self.mirror);
        blocking(move |_| chain(&mirror.open()?, head, held, limit)).await
    }

    /// Asks again with a new mirror where the old one turns out to be damaged.
    async fn healing(&self, turn: &Turn, order: &FetchOrder, deepen: bool) -> Result<FetchReport, GitError> {
        match self.bring(turn, order, deepen).await {
            Err(GitError::Corrupt(_)) => {
                self.mirror.mark_damaged();
                match self.bring(turn, order, deepen).await {
                    // A fresh mirror cannot be damaged: it is the host that sends nonsense.
                    Err(GitError::Corrupt(text)) => Err(GitError::Protocol(text)),
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn bring(&self, turn: &Turn, order: &FetchOrder, deepen: bool) -> Result<FetchReport, GitError> {
        let survey = self.survey(turn, order, deepen).await?;
        if survey.missing.is_empty() {
            return Ok(FetchReport::default());
        }
        let Survey { missing: wants, haves, shallow } = survey;
        let has_more_to_say = !haves.is_empty() || !shallow.is_empty();
        let mut request = Request { wants, haves, shallow, depth: order.depth.max(1) };
        if has_more_to_say {
            match self.ask(turn, &request).await {
                Ok(report) => return Ok(report),
                Err(FetchFailure::Git(GitError::Missing(id))) => {
                    tracing::debug!(object = %id, "the host left out {id}; asking for everything");
                }
                Err(FetchFailure::Refused(error)) => {
                    tracing::debug!(%error, "what came does not fit what is here; asking for everything");
                }
                Err(FetchFailure::Git(error)) => return Err(error),
            }
            request.haves.clear();
            request.shallow.clear();
        }
        match self.ask(turn, &request).await {
            Ok(report) => Ok(report),
            Err(FetchFailure::Git(GitError::Missing(id))) => {
                Err(GitError::Protocol(format!("the host did not send object {id}")))
            }
            Err(FetchFailure::Git(error) | FetchFailure::Refused(error)) => Err(error),
        }
    }

    async fn survey(&self, turn: &Turn, order: &FetchOrder, deepen: bool) -> Result<Survey, GitError> {
        let (mirror, settings, order, turn) =
            (Arc::clone(self.mirror), Arc::clone(self.settings), order.clone(), Arc::clone(turn));
        blocking(move |cancel| {
            let _turn = turn;
            mirror.prepare()?;
            survey(&mirror, &settings, &order, deepen, cancel)
        })
        .await
    }

    async fn ask(&self, turn: &Turn, request: &Request) -> Result<FetchReport, FetchFailure> {
        let capabilities = self.host.capabilities(self.url, self.credential).await?;
        let expected = Expected {
            mirror: Arc::clone(self.mirror),
            wants: request.wants.clone(),
            haves: request.haves.clone(),
            _turn: Arc::clone(turn),
        };
        let (client, credential) = (&self.host.client, self.credential);
        let result = fetch::fetch(client, self.settings, &capabilities, credential, request, expected).await;
        match &result {
            Ok(report) => tracing::debug!(
                fetch.bytes = report.bytes,
                fetch.objects = report.objects,
                "fetched {} objects in {} bytes",
                report.objects,
                report.bytes
            ),
            Err(FetchFailure::Git(error)) => self.host.doubt(self.url, error),
            Err(FetchFailure::Refused(_)) => {}
        }
        result
    }
}

/// What of an order is here. With `deepen` the wants are asked for even if they are.
fn survey(
    mirror: &Mirror,
    settings: &GitSettings,
    order: &FetchOrder,
    deepen: bool,
    cancel: &Cancel,
) -> Result<Survey, GitError> {
    let objects = mirror.open()?;
    let limits = || Limits::new(settings, cancel.clone());
    let is_doubted = mirror.take_doubt();
    let mut haves = Vec::new();
    for have in order.haves.iter().copied().collect::<BTreeSet<_>>() {
        // What was let in was complete; only where a read missed something is that checked again.
        let is_whole = !is_doubted || closure::check(&objects, &limits(), have, &[]).is_ok();
        if is_usable(&objects, have) && is_whole {
            haves.push(have);
        }
    }
    let (mut missing, mut is_broken) = (Vec::new(), false);
    for want in order.wants.iter().copied().collect::<BTreeSet<_>>() {
        if !objects.contains(want) || deepen {
            missing.push(want);
        } else if !mirror.is_complete(want) {
            match closure::check(&objects, &limits(), want, &haves) {
                Ok(()) => mirror.mark_complete(want),
                Err(GitError::Missing(_)) => {
                    is_broken = true;
                    missing.push(want);
                }
                Err(error) => return Err(error),
            }
        }
    }
    if is_broken {
        // What we say we have decides what is left out; after a loss nothing is sure.
        return Ok(Survey { missing, haves: Vec::new(), shallow: Vec::new() });
    }
    let shallow = mirror.shallow().into_iter().filter(|commit| objects.contains(*commit));
    Ok(Survey { missing, haves, shallow: shallow.take(SHALLOW_SAID).collect() })
}

/// A commit whose tree is here.
fn is_usable(objects: &Objects, commit: ObjectId) -> bool {
    objects.contains(commit)
        && matches!(objects.header(commit), Ok((_, Kind::Commit)))
        && objects.commit(commit).is_ok_and(|commit| objects.contains(commit.tree))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let cancel = Cancel::default();
    let _cancel_on_drop = cancel.on_drop();
    spawn_blocking(move || work(&cancel))
        .await
        .map_err(|_| GitError::Storage("work on a mirror panicked".to_owned()))?
}
