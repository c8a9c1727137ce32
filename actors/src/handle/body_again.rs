//! Renders the body of a change again, to show it to people: every attempt of a delivery sends the same
//! bytes, and they are not stored.

use std::sync::Arc;

use tidings_entity::id::AppId;

use super::Handle;
use crate::{
    deliverer::{INLINE_MAX, opening},
    model::{
        round::{Change, DeliveryId},
        sink::Outlet,
    },
    ports::{DeliveryOrder, LaneFacts, Parcel, PastRound, PrepareError, RepositoryFacts},
};

/// Contents with more bytes are not read for it (256 KiB).
const CONTENT_BYTES_MAX: u64 = 256 << 10;

impl Handle {
    /// Renders the body of a change as attempts send it, or as its task has it, from the trees and contents
    /// in the mirror: nothing is fetched, and nothing is sent.
    ///
    /// # Errors
    /// When the mirror lacks the content, or the content is larger than the limit for this call.
    pub async fn body_again(
        &self,
        app: &AppId,
        past: &PastRound,
        (repository, outlet): (RepositoryFacts, Outlet),
        change: Change,
        position: u64,
    ) -> Result<Parcel, PrepareError> {
        let (context, round) = (&self.context, &past.round);
        let _turn = context.read_turns.take(app).await;
        let commit = match &round.spec.target {
            Some(target) => Some(Arc::new(context.git.commit(&past.remote, target.commit).await?)),
            None => None,
        };
        let renames = opening::renames(context, &past.remote, round).await?;
        let is_new = change.old.is_none();
        let renamed_from = change.new.filter(|_| is_new).and_then(|entry| renames.get(&entry.blob).cloned());
        let id = DeliveryId::of(&round.cursor, round.number, &change);
        let (remote, round) = (past.remote.clone(), Arc::new(round.clone()));
        let inline_max = (outlet == Outlet::HandOver).then_some(INLINE_MAX);
        let lane = Arc::new(LaneFacts { remote, repository, round, commit, inline_max });
        let order = DeliveryOrder { id, lane, change, renamed_from, position, unobtainable: Vec::new() };
        let parcels = context.transport.prepare(&Arc::from([order]), CONTENT_BYTES_MAX).await?;
        Ok(parcels.into_iter().next().expect("a transport renders the first or fails"))
    }
}
