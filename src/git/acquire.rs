//! Fetches objects into a mirror: finds what is missing, asks the host for it, and corrects faults on the
//! way. A host that rejects our haves is asked again without them, and a host that rejects a filter is asked
//! without a filter; a damaged mirror is replaced by an empty one. Several wants are requested together; if
//! some of them cannot be fetched, the others are requested without them.
//!
//! In a partial mirror a commit counts as present for an order of trees as soon as its trees are present. For
//! an order of everything its blobs must be present as well: otherwise the host would leave out blobs that it
//! believes to be present.

pub(crate) mod blobs;
pub(crate) mod closure;
pub(crate) mod faults;
pub(crate) mod groups;
pub(crate) mod survey;

use std::{collections::BTreeSet, sync::Arc};

use tidings_actors::{
    model::secret::Secret,
    ports::{Extent, FetchOrder, FetchOutcome, FetchReport, GitError, Walk},
    signals::growth::Growth,
};
use tidings_entity::id::{AppId, ObjectId, RepositoryId};
use tokio::task::spawn_blocking;
use url::Url;

use super::{credential::scrubbed, host::Host, mirror::Mirror};
use crate::settings::GitSettings;
use crate::{
    acquire::{
        blobs::absent,
        faults::{Sorted, except},
        groups::Groups,
        survey::{Survey, survey},
    },
    host::{
        client::Requester,
        fetch::{self, FetchFailure, Request},
        receive::Expected,
    },
    mirror::turn::Turn,
    objects::{
        history::{Chain, chain},
        limits::Cancel,
    },
};

/// The depth of the first step behind a head; each further step doubles it.
const FIRST_DEPTH: u32 = 50;
/// A repository of a host, and its mirror.
pub(super) struct Acquire<'a> {
    pub(super) host: &'a Host,
    pub(super) settings: &'a Arc<GitSettings>,
    pub(super) url: &'a Url,
    pub(super) credential: Option<&'a Secret>,
    pub(super) mirror: &'a Arc<Mirror>,
    pub(super) repository: &'a RepositoryId,
    pub(super) apps: &'a [AppId],
    pub(super) growth: &'a Growth,
}

/// The parts of a request to a host other than its wants.
struct Said<'a> {
    turn: &'a Turn,
    order: &'a FetchOrder,
    haves: Vec<ObjectId>,
    shallow: Vec<ObjectId>,
    trusted: bool,
}

impl Said<'_> {
    /// Adds fetched commits to the haves, so that the next request does not send them again.
    fn learn(&mut self, brought: &[ObjectId]) {
        if self.order.depth <= 1 && self.order.extent > Extent::Commit {
            self.haves.extend(brought);
            self.shallow.extend(brought);
        }
    }
}

/// The objects to fetch, and how.
struct Errand<'a> {
    turn: &'a Turn,
    order: &'a FetchOrder,
    /// Wants that could not be fetched before.
    again: &'a BTreeSet<ObjectId>,
    /// The wants are asked for even if they are here.
    deepen: bool,
}

impl Acquire<'_> {
    fn requester(&self) -> Requester<'_> {
        Requester { credential: self.credential, apps: self.apps }
    }

    /// Fetches the commits of a source's refs, each by itself. A commit that could not be fetched recently is
    /// not requested again yet.
    pub(super) async fn fetch_each(&self, order: &FetchOrder) -> Result<FetchOutcome, GitError> {
        let faults = self.mirror.faults();
        let asker = faults.asker(self.credential);
        let Sorted { refused, asked, again } = faults.sort(asker, &order.wants);
        let mut outcome = self.fetch(&FetchOrder { wants: asked.clone(), ..order.clone() }, &again).await?;
        let not_had = outcome.refused.iter().map(|(want, _)| *want).chain(outcome.untried.iter().copied());
        let had = except(&asked, not_had);
        for (_, error) in &mut outcome.refused {
            *error = scrubbed(error.clone(), self.credential, self.url);
        }
        // If every want was requested and none could be fetched, the repository is at fault, not its commits:
        // nothing is recorded, and the next poll requests them again.
        if !had.is_empty() || !outcome.untried.is_empty() {
            outcome.refused.iter_mut().for_each(|(_, error)| blame(error));
            faults.note(asker, &outcome.refused);
        }
        faults.forget(asker, had);
        outcome.refused.extend(refused);
        Ok(outcome)
    }

    /// Fetches the missing objects of an order from the host.
    pub(super) async fn fetch(
        &self,
        order: &FetchOrder,
        again: &BTreeSet<ObjectId>,
    ) -> Result<FetchOutcome, GitError> {
        // Contents that were dropped to make room come back when they are needed, not all at once.
        let comes_alone = self.look(|mirror| mirror.is_evicted() || mirror.is_heavy()).await?;
        let extent = if comes_alone { order.extent.min(Extent::Trees) } else { order.extent };
        let order = FetchOrder { extent, ..order.clone() };
        let wants = order.wants.clone();
        if wants.is_empty() || self.look(move |mirror| mirror.still_holds(&wants, extent)).await? {
            return Ok(FetchOutcome::default());
        }
        let turn = self.mirror.turn().await?;
        let outcome = self.healing(&Errand { turn: &turn, order: &order, again, deepen: false }).await?;
        if extent == Extent::Whole && outcome.cost.objects > 0 {
            self.judge_filter(&order.wants).await?;
        }
        Ok(outcome)
    }

    /// A host that refused a content by its id and gives it with its commit is not asked to leave anything
    /// out.
    async fn judge_filter(&self, brought: &[ObjectId]) -> Result<(), GitError> {
        let Some(blob) = self.mirror.take_refused().filter(|blob| !brought.contains(blob)) else {
            return Ok(());
        };
        let mirror = Arc::clone(self.mirror);
        if blocking(move |_| absent(&mirror, &[blob])).await?.is_empty() {
            tracing::info!("the host gives no content by its id: whole commits are asked for");
            self.host.known.no_filter(self.url);
        }
        Ok(())
    }

    /// Walks first parents from `head` to `held`, deepening where it must.
    pub(super) async fn walk(&self, head: ObjectId, held: ObjectId, limit: u32) -> Result<Walk, GitError> {
        let (mut depth, mut before) = (FIRST_DEPTH, None);
        loop {
            let (reached, last) = match self.chain(head, held, limit).await? {
                Chain::Done(walk) => return Ok(walk),
                Chain::Ends { reached, last } => (reached, last),
            };
            // The step brought no further commits: the host has none.
            if before == Some(reached) {
                return Ok(Walk::Rewritten);
            }
            before = Some(reached);
            while depth <= reached {
                depth = depth.saturating_mul(2);
            }
            let turn = self.mirror.turn().await?;
            self.cut(&turn, last).await?;
            // Commits on the way are fetched as far as the mirror has others: trees, or everything.
            let is_partial = self.look(Mirror::is_partial).await?;
            let extent = if is_partial { Extent::Trees } else { Extent::Whole };
            // The haves are listed first, so that the host learns which of them lack their parents.
            let haves = [held, head].into_iter().chain(last).collect();
            let depth = depth.min(limit.max(1));
            let order = FetchOrder { wants: vec![head], haves, depth, extent };
            let again = &BTreeSet::new();
            self.healing(&Errand { turn: &turn, order: &order, again, deepen: true }).await?.whole()?;
        }
    }

    /// Looks at files of the mirror; on a blocking thread where they may lie behind a network.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Mirror) -> T + Send + 'static,
    ) -> Result<T, GitError> {
        if !self.mirror.is_shared() {
            return Ok(look(self.mirror));
        }
        let mirror = Arc::clone(self.mirror);
        blocking(move |_| Ok(look(&mirror))).await
    }

    /// Records that the last commit lacks its parents, if that is not recorded yet. Otherwise the host would
    /// believe that all its ancestors are present and send nothing, and the history would look rewritten.
    async fn cut(&self, turn: &Turn, last: Option<ObjectId>) -> Result<(), GitError> {
        let Some(last) = last else { return Ok(()) };
        let (mirror, turn) = (Arc::clone(self.mirror), turn.clone());
        blocking(move |_| {
            match mirror.shallow() {
                Ok(mut lines) => {
                    if lines.insert(last) {
                        mirror.set_shallow(&turn, &lines)
                    } else {
                        Ok(())
                    }
                }
                // The fetch that follows replaces the damaged mirror.
                Err(GitError::Corrupt(_)) => {
                    mirror.mark_damaged();
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn chain(&self, head: ObjectId, held: ObjectId, limit: u32) -> Result<Chain, GitError> {
        let mirror = Arc::clone(self.mirror);
        blocking(move |_| chain(&mirror.open()?, head, held, limit)).await
    }

    /// Fetches, and repeats with an empty mirror if the old one turns out to be damaged.
    async fn healing(&self, errand: &Errand<'_>) -> Result<FetchOutcome, GitError> {
        let order = errand.order;
        self.mirror.note_wanted(&order.wants);
        let brought = match self.bring(errand).await {
            Err(GitError::Corrupt(_)) => {
                self.mirror.mark_damaged();
                match self.bring(errand).await {
                    // A new mirror cannot be damaged: the host sent an invalid answer.
                    Err(GitError::Corrupt(text)) => Err(GitError::Protocol(text)),
                    other => other,
                }
            }
            other => other,
        };
        // A commit that is fetched for a proof is removed at once, with its mirror.
        if let Ok(outcome) = &brought
            && order.extent != Extent::Commit
        {
            self.note_growth(outcome.cost);
        }
        brought
    }

    /// Tells upkeep that the mirror grew.
    pub(super) fn note_growth(&self, report: FetchReport) {
        if report.objects > 0 {
            self.growth.note(self.repository);
        }
    }

    /// Requests missing objects. If some of several wants cannot be fetched, the others are requested without
    /// them: wants that the host names are left out; otherwise the wants are divided until the faulty ones
    /// are known.
    async fn bring(&self, errand: &Errand<'_>) -> Result<FetchOutcome, GitError> {
        let Survey { missing, refused, haves, shallow, trusted } = self.survey(errand).await?;
        let mut outcome = FetchOutcome { refused, ..FetchOutcome::default() };
        if missing.is_empty() {
            return Ok(outcome);
        }
        self.mirror.check_room()?;
        let faults = self.mirror.faults();
        let is_some_here = errand.order.wants.len() > missing.len() + outcome.refused.len();
        let mut groups = Groups::of(missing, errand.again, faults.together());
        let mut doubtful = Vec::new();
        let mut said = Said { turn: errand.turn, order: errand.order, haves, shallow, trusted };
        while let Some(mut group) = groups.next() {
            match self.bring_together(&said, &group.wants).await {
                Ok(report) => {
                    outcome.cost.bytes += report.bytes;
                    outcome.cost.objects += report.objects;
                    said.learn(&group.wants);
                    faults.ask_for_more();
                }
                Err(FetchFailure::Wants(odd)) => {
                    group.wants = except(&group.wants, odd.iter().map(|(want, _)| *want));
                    groups.put_back(group);
                    outcome.refused.extend(odd.into_iter().map(|(want, error)| (want, settled(want, error))));
                }
                Err(FetchFailure::Git(GitError::Unobtainable(id)))
                    if group.wants.len() > 1 && group.wants.contains(&id) =>
                {
                    group.wants = except(&group.wants, [id]);
                    groups.put_back(group);
                    outcome.refused.push((id, GitError::Unobtainable(id)));
                }
                Err(failure) => {
                    let error = failure.reason();
                    match group.wants.as_slice() {
                        [alone] if error.is_divisible() => {
                            outcome.refused.push((*alone, settled(*alone, error)));
                        }
                        _ if error.is_divisible() => groups.divide(group),
                        _ if !error.may_be_of_size() => return Err(error),
                        [alone] => {
                            faults.ask_for_fewer(1);
                            let takes_long = matches!(error, GitError::Timeout(_));
                            doubtful.push((*alone, error));
                            // Each such request takes minutes, so one per poll is enough.
                            if takes_long {
                                break;
                            }
                        }
                        wants => {
                            faults.ask_for_fewer(wants.len());
                            return Err(error);
                        }
                    }
                }
            }
        }
        // If other commits could be fetched, a timeout or a broken connection is the fault of this commit.
        let (others_came, others_wait) = (outcome.cost.objects > 0, !groups.is_empty());
        for (want, error) in doubtful {
            let takes_long = matches!(error, GitError::Timeout(_));
            if !others_came && !(takes_long && (is_some_here || others_wait)) {
                return Err(error);
            }
            outcome.refused.push((want, error));
        }
        outcome.untried = groups.untried();
        Ok(outcome)
    }

    /// Requests these wants together, and again in another form if the host refuses the form.
    async fn bring_together(&self, said: &Said<'_>, wants: &[ObjectId]) -> Result<FetchReport, FetchFailure> {
        let can_filter = self.host.capabilities(self.url, self.requester()).await?.protocol.can_filter();
        let extent = if can_filter { said.order.extent } else { Extent::Whole };
        let mut request = Request {
            wants: wants.to_vec(),
            haves: said.haves.to_vec(),
            shallow: said.shallow.to_vec(),
            depth: said.order.depth.max(1),
            extent,
        };
        loop {
            let failure = match self.ask(said.turn, &request, said.trusted).await {
                Ok(report) => return Ok(report),
                Err(failure) => failure,
            };
            let has_more_to_say = !request.haves.is_empty() || !request.shallow.is_empty();
            match (failure, request.extent) {
                (FetchFailure::Filter(error), Extent::Commit) => {
                    tracing::debug!(%error, "the host does not leave out trees; asking for them");
                    request.extent = Extent::Trees;
                    continue;
                }
                (FetchFailure::Filter(error), Extent::Trees) => {
                    tracing::debug!(%error, "the host does not leave out contents; asking for them");
                    self.host.known.no_filter(self.url);
                    request.extent = Extent::Whole;
                    continue;
                }
                (FetchFailure::Object(error), Extent::Whole) if can_filter && !has_more_to_say => {
                    tracing::debug!(%error, "asking for trees; contents come by themselves when they are \
                        needed");
                    self.look(Mirror::set_heavy).await??;
                    request.extent = Extent::Trees;
                    continue;
                }
                // The whole commits may exceed the limits of one app's watch, and their trees may not.
                (FetchFailure::Git(error @ GitError::TooLarge(_)), Extent::Whole) if can_filter => {
                    tracing::info!(%error, "asking for trees; contents come by themselves when they are \
                        needed");
                    self.look(Mirror::set_heavy).await??;
                    request.extent = Extent::Trees;
                    continue;
                }
                (failure, _) if !has_more_to_say => return Err(failure),
                (FetchFailure::Git(GitError::Missing(id)), _) => {
                    tracing::debug!(object = %id, "the host left out {id}; asking for everything");
                }
                (FetchFailure::Wants(odd), _)
                    if odd.iter().any(|(_, error)| matches!(error, GitError::Missing(_))) =>
                {
                    tracing::debug!("the host left out objects; asking for everything");
                }
                (FetchFailure::Refused(error) | FetchFailure::Object(error), _) => {
                    tracing::debug!(%error, "what came does not fit what is here; asking for everything");
                }
                (failure, _) => return Err(failure),
            }
            request.haves.clear();
            request.shallow.clear();
        }
    }

    async fn survey(&self, errand: &Errand<'_>) -> Result<Survey, GitError> {
        let (mirror, settings) = (Arc::clone(self.mirror), Arc::clone(self.settings));
        let (order, turn, deepen) = (errand.order.clone(), errand.turn.clone(), errand.deepen);
        blocking(move |cancel| {
            mirror.prepare(&turn)?;
            survey(&mirror, &settings, &order, deepen, cancel)
        })
        .await
    }

    pub(super) async fn ask(
        &self,
        turn: &Turn,
        request: &Request,
        trusted: bool,
    ) -> Result<FetchReport, FetchFailure> {
        let capabilities = self.host.capabilities(self.url, self.requester()).await?;
        let expected = Expected {
            mirror: Arc::clone(self.mirror),
            wants: request.wants.clone(),
            haves: request.haves.clone(),
            extent: request.extent,
            trusted,
            apps: self.apps.to_vec(),
            turn: turn.clone(),
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
            Err(_) => {}
        }
        result
    }
}

/// A host that sends other commits and fails on this one works: the commit is broken.
fn blame(error: &mut GitError) {
    if let GitError::Protocol(text) = error {
        *error = GitError::Broken(std::mem::take(text));
    }
}

/// The error for a want that cannot be fetched. If the host leaves out an object that the want needs, the
/// want is broken.
fn settled(want: ObjectId, error: GitError) -> GitError {
    match error {
        GitError::Missing(missing) if missing == want => GitError::Unobtainable(want),
        GitError::Missing(missing) => {
            GitError::Broken(format!("the host did not send object {missing}, which {want} needs"))
        }
        error => error,
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Cancel) -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let cancel = Cancel::default();
    let _cancel_on_drop = cancel.on_drop();
    spawn_blocking(move || work(&cancel))
        .await
        .map_err(|_| GitError::Storage("work on a mirror panicked".to_owned()))?
}
