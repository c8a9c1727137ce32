//! Finds the subscriptions with waiting entries, and starts their actors: as soon as this process wrote
//! entries, or another replica signals that it did, and every [`EVERY`] in case a signal was lost. One
//! statement finds them all, so subscriptions without waiting entries cost next to nothing. Supervised by
//! `housekeeping`, restarted after a failure; a crash loses one look.
//!
//! It signals to the other replicas that entries were written: the replica with the shard of their app sends
//! them. At most one look and one signal in [`GATHER`], however many entries are written. Its mailbox is
//! bounded by its timer, one look and one task that listens.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::id::{AppId, SubscriptionId};
use tokio::sync::watch;
use tracing::warn;

use super::{UpkeepArguments, beyond};
use crate::{
    context::Context,
    ports::{Signal, StoreError},
    signals::coalesced::Coalesced,
    subscriber::SubscriberMessage,
    supervision::{
        directory::Mailbox,
        tasks::{Tasks, in_time},
        tree::SUBSCRIBER,
    },
};

/// The wait between two looks that no hint asked for.
const EVERY: Duration = Duration::from_secs(10);
/// Entries that are written within this time are looked for together.
const GATHER: Duration = Duration::from_millis(50);

/// Messages to the subscription keeper.
#[derive(Debug)]
pub enum SubscriptionKeeperMessage {
    /// Entries may wait for subscriptions.
    Look,
    /// The wait for the next regular look is over.
    Due,
    /// This process wrote entries.
    Written(Result<watch::Receiver<u64>, String>),
    /// Listen for the next entries that this process writes.
    Listen(watch::Receiver<u64>),
    /// The subscriptions that are behind were read.
    Looked(Result<Result<Vec<(SubscriptionId, AppId)>, StoreError>, String>),
    /// The other replicas were notified, or notifying them failed.
    Told(Result<(), String>),
}

/// The context, and the read that is under way.
pub struct SubscriptionKeeperState {
    context: Context,
    mailbox: Mailbox<SubscriptionKeeperMessage>,
    tasks: Tasks,
    looking: Coalesced,
}

/// The actor that wakes the actors of subscriptions that are behind.
pub struct SubscriptionKeeper;

#[ractor::async_trait]
impl Actor for SubscriptionKeeper {
    type Msg = SubscriptionKeeperMessage;
    type State = SubscriptionKeeperState;
    type Arguments = UpkeepArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let UpkeepArguments { context, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(SubscriptionKeeperMessage::Listen(context.store.entries_written()));
        mailbox.send(SubscriptionKeeperMessage::Due);
        Ok(SubscriptionKeeperState { context, mailbox, tasks: Tasks::default(), looking: Coalesced::Idle })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use SubscriptionKeeperMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Look => state.look(),
            M::Due => state.on_due(),
            M::Written(written) => state.on_written(written?),
            M::Listen(written) => state.listen(written),
            M::Looked(result) => state.on_looked(result?),
            M::Told(result) => result?,
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

impl SubscriptionKeeperState {
    fn look(&mut self) {
        if self.context.directory.is_closed() || !self.looking.begin() {
            return;
        }
        let context = self.context.clone();
        let work = async move {
            let now = context.now();
            if context.shards.leads() {
                in_time(context.store.expire_subscriptions(now)).await?;
            }
            in_time(context.store.subscriptions_behind(&context.shards.reach(), now)).await
        };
        self.tasks.spawn(&self.mailbox, work, SubscriptionKeeperMessage::Looked);
    }

    fn on_due(&mut self) {
        self.look();
        self.mailbox.send_after(EVERY, || SubscriptionKeeperMessage::Due);
    }

    fn on_written(&mut self, written: watch::Receiver<u64>) {
        self.look();
        if !self.context.shards.is_sole() {
            let context = self.context.clone();
            let work = async move { context.tell_others(Signal::Ledger).await };
            self.tasks.spawn(&self.mailbox, work, SubscriptionKeeperMessage::Told);
        }
        self.mailbox.send_after(GATHER, move || SubscriptionKeeperMessage::Listen(written));
    }

    /// Waits until entries are written after those that were seen.
    fn listen(&mut self, written: watch::Receiver<u64>) {
        self.tasks.spawn(&self.mailbox, beyond(written), SubscriptionKeeperMessage::Written);
    }

    fn on_looked(&mut self, result: Result<Vec<(SubscriptionId, AppId)>, StoreError>) {
        let again = self.looking.end();
        match result {
            Ok(behind) => {
                for (subscription, _) in behind {
                    self.wake(&subscription);
                }
            }
            Err(StoreError::Fenced) => self.context.give_up("another process took over this database"),
            Err(reason) => warn!("the subscriptions that are behind could not be read: {reason}"),
        }
        if again {
            self.look();
        }
    }

    fn wake(&self, subscription: &SubscriptionId) {
        let found = self.context.directory.find(SUBSCRIBER, subscription.as_str());
        if !found.is_some_and(|subscriber| subscriber.send(SubscriberMessage::Look)) {
            self.context.ensure_subscriber(subscription.as_str());
        }
    }
}
