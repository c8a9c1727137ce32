//! Marks the letters of redrives, some thousand per step, and from time to time checks dead letters whose
//! content could not be fetched anywhere: as soon as a fetch brings a blob, its letter is redriven. Content
//! in the mirror costs one look. A host is asked for the rest, a bounded number of times for each cursor,
//! beginning at a random letter, so that no letter waits behind others for ever.
//!
//! At most one pass per interval, also after a restart: the first one comes an interval after the start. A
//! crash loses one pass. The rest of a redrive's marking is a row, which is read at the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId},
    kind::RoundKind,
};
use tracing::{info, warn};

use super::UpkeepArguments;
use crate::{
    context::Context,
    deliverer::{self, opening},
    model::round::{Letter, RoundSpec, TreeEnd},
    ports::{Extent, FetchOrder, GitError, LaneSnapshot, LetterPick, RedriveStep, Seek, StoreError},
    signals::coalesced::Coalesced,
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
    },
};

/// The wait between two passes.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The wait after a redrive could not be carried on.
const MARK_WAIT: Duration = Duration::from_secs(5);
/// How often a replica looks whether it leads by now.
const LEAD_WAIT: Duration = Duration::from_secs(5);
/// How often the leading replica looks for redrives without a signal.
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// The letters that one statement reads.
const PAGE: u64 = 1_000;
/// Refusals of a host after which it is asked for no further blob of this cursor in this pass.
const REFUSALS_MAX: usize = 16;

/// Messages to the letter keeper.
#[derive(Debug)]
pub enum LetterKeeperMessage {
    /// Look at all letters.
    Due,
    /// A redrive is to be carried on.
    Mark,
    /// Redrives may wait that another replica began.
    LookAgain,
    /// Some letters of a redrive were marked; `None`: there was no redrive to mark.
    Marked(Result<Result<Option<RedriveStep>, StoreError>, String>),
    /// All letters were checked; the number of letters that will be sent again.
    Looked(Result<Result<u64, StoreError>, String>),
}

/// The state of the actor between two messages.
pub struct LetterKeeperState {
    context: Context,
    mailbox: Mailbox<LetterKeeperMessage>,
    tasks: Tasks,
    /// The marking of redrives, one step at a time.
    marking: Coalesced,
    /// Whether a later look for redrives is scheduled.
    looks_again: bool,
}

/// The actor that marks the letters of redrives, and redrives letters whose content became available.
pub struct LetterKeeper;

#[ractor::async_trait]
impl Actor for LetterKeeper {
    type Msg = LetterKeeperMessage;
    type State = LetterKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mailbox = Mailbox::new(myself, arguments.gauge);
        mailbox.send_after(INTERVAL, || LetterKeeperMessage::Due);
        mailbox.send_after(Duration::ZERO, || LetterKeeperMessage::Mark);
        Ok(LetterKeeperState {
            context: arguments.context,
            mailbox,
            tasks: Tasks::default(),
            marking: Coalesced::Idle,
            looks_again: false,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            LetterKeeperMessage::Due => state.on_due(),
            LetterKeeperMessage::Mark => state.on_mark(),
            LetterKeeperMessage::LookAgain => state.on_look_again(),
            LetterKeeperMessage::Marked(result) => state.on_marked(result).await,
            LetterKeeperMessage::Looked(result) => state.on_looked(result?),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl LetterKeeperState {
    fn on_due(&mut self) {
        self.tasks.spawn(&self.mailbox, look(self.context.clone()), LetterKeeperMessage::Looked);
    }

    fn on_mark(&mut self) {
        if !self.context.shards.leads() {
            // One of all replicas marks letters. A replica that becomes the leader looks by itself.
            return self.look_again(LEAD_WAIT);
        }
        if !self.marking.begin() {
            return;
        }
        let context = self.context.clone();
        let step = async move { in_time(context.store.mark_redrive(None)).await };
        self.tasks.spawn(&self.mailbox, step, LetterKeeperMessage::Marked);
    }

    fn on_look_again(&mut self) {
        self.looks_again = false;
        self.on_mark();
    }

    async fn on_marked(&mut self, result: Result<Result<Option<RedriveStep>, StoreError>, String>) {
        let again = self.marking.end();
        match result {
            Ok(Ok(Some(step))) => {
                if step.marked > 0 {
                    deliverer::refresh(&self.context, &step.app).await;
                }
                self.on_mark();
            }
            Ok(Ok(None)) if again => self.on_mark(),
            Ok(Ok(None)) if self.context.shards.is_sole() => {}
            // The signal of another replica about a new redrive may be lost.
            Ok(Ok(None)) => self.look_again(LOOK_WAIT),
            Ok(Err(reason)) => self.mark_later(&reason.to_string()),
            Err(reason) => self.mark_later(&reason),
        }
    }

    fn look_again(&mut self, wait: Duration) {
        if !std::mem::replace(&mut self.looks_again, true) {
            self.mailbox.send_after(wait, || LetterKeeperMessage::LookAgain);
        }
    }

    fn mark_later(&mut self, reason: &str) {
        warn!("a redrive could not be carried on: {reason}");
        self.mailbox.send_after(MARK_WAIT, || LetterKeeperMessage::Mark);
    }

    fn on_looked(&mut self, result: Result<u64, StoreError>) {
        match result {
            Ok(0) => {}
            Ok(count) => {
                info!(count, "the content of {count} dead letters is available again: they are sent again")
            }
            Err(reason) => warn!("dead letters could not be looked at: {reason}"),
        }
        self.mailbox.send_after(INTERVAL, || LetterKeeperMessage::Due);
    }
}

/// Checks all letters; a failure for one cursor does not stop the others.
async fn look(context: Context) -> Result<u64, StoreError> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = in_time(context.store.unavailable_letters(after.as_ref(), PAGE)).await?;
        after = page.last().map(|(_, _, letter)| letter.clone());
        let last = (page.len() as u64) < PAGE;
        let mut cursors: BTreeMap<(AppId, CursorId), BTreeSet<DeadLetterId>> = BTreeMap::new();
        for (app, cursor, letter) in page {
            cursors.entry((app, cursor)).or_default().insert(letter);
        }
        for ((app, cursor), letters) in cursors {
            match look_at(&context, &app, &cursor, &letters).await {
                Ok(requested) => count += requested,
                Err(reason) => {
                    warn!(
                        cursor.id = %cursor,
                        "the dead letters of {cursor} could not be looked at: {reason}"
                    );
                }
            }
        }
        if last {
            return Ok(count);
        }
    }
}

async fn look_at(
    context: &Context,
    app: &AppId,
    cursor: &CursorId,
    letters: &BTreeSet<DeadLetterId>,
) -> Result<u64, opening::OpeningError> {
    let lane = in_time(context.store.lane(cursor)).await?;
    if !context.shards.owns(&lane.remote.repository) {
        // Another replica has the mirror of this repository.
        return Ok(0);
    }
    let obtainable = obtainable(context, &lane, letters).await?;
    if obtainable.is_empty() {
        return Ok(0);
    }
    let (requested, _) = in_time(context.store.request_redrive(app, &obtainable)).await?;
    deliverer::refresh(context, app).await;
    Ok(requested)
}

/// The letters whose content can be read or fetched now.
async fn obtainable(
    context: &Context,
    lane: &LaneSnapshot,
    wanted: &BTreeSet<DeadLetterId>,
) -> Result<Vec<DeadLetterId>, opening::OpeningError> {
    // An open round may change these paths, so its end is waited for.
    let Some((commit, view)) = lane.held.clone().filter(|_| lane.open.is_none()) else {
        return Ok(Vec::new());
    };
    let held = Some(TreeEnd { commit, view });
    let pick = LetterPick::Ids(wanted.iter().cloned().collect());
    let letters = in_time(context.store.open_letters(&lane.cursor, &pick)).await?;
    let letters: Vec<Letter> = letters.into_iter().map(|(letter, _)| letter).collect();
    let most = letters.len().saturating_mul(2);
    let target = held.clone();
    let spec = RoundSpec { kind: RoundKind::Redrive, held, target, bases: Vec::new(), letters };
    let mut changes = match context.git.window(&lane.remote, &spec, &Seek::Position(0), most).await {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            let trees =
                FetchOrder { wants: vec![commit], depth: 1, extent: Extent::Trees, ..FetchOrder::default() };
            opening::fetch(context, &lane.remote, trees).await?;
            context.git.window(&lane.remote, &spec, &Seek::Position(0), most).await?
        }
        other => other?,
    };
    if !changes.is_empty() {
        let start = context.random.below(changes.len() as u64);
        changes.rotate_left(usize::try_from(start).unwrap_or(0));
    }
    let mut lacking: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut refusals = 0;
    for change in changes {
        let Some(entry) = change.new else { continue };
        if !is_present(context, lane, entry.blob, &mut refusals).await? {
            lacking.insert(change.path);
        }
    }
    let found = spec.letters.into_iter().filter(|letter| !lacking.contains(&letter.path));
    Ok(found.map(|letter| letter.id).collect())
}

/// Whether the mirror has a blob, or its host gave it just now.
async fn is_present(
    context: &Context,
    lane: &LaneSnapshot,
    blob: ObjectId,
    refusals: &mut usize,
) -> Result<bool, GitError> {
    match context.git.content(&lane.remote, blob, 0).await {
        Ok(_) => return Ok(true),
        Err(GitError::Missing(_)) if *refusals < REFUSALS_MAX => {}
        Err(GitError::Missing(_)) => return Ok(false),
        Err(error) => return Err(error),
    }
    let alone = FetchOrder { wants: vec![blob], depth: 1, ..FetchOrder::default() };
    match opening::fetch(context, &lane.remote, alone).await {
        Ok(()) => Ok(true),
        Err(GitError::Unobtainable(_)) => {
            *refusals += 1;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
