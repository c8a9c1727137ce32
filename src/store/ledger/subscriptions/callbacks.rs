//! Callbacks: the subscriptions that tasks make for the address in their `webhook`, one for each address of
//! an app. Its id follows from both, so that replicas which need it at the same moment make the same row.
//!
//! A new task makes the callback, and its end makes it again where it was removed meanwhile, so that no end
//! is lost. A callback begins at the end of the ledger: only the entries of later ends are addressed to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::codeq,
    ports::{CALLBACK_KEPT, CALLBACKS_MAX, DeliverySettings, StoreError, sink_of},
    time::Timestamp,
};
use tidings_entity::id::{AppId, SubscriptionId};

use crate::database::{
    error::undecodable,
    rows::{self, LISTED_MAX, list, signed},
};

/// The filter that people are shown. The entries are those that are addressed to the callback.
const FILTER: &str = "type:task.ended";

#[derive(FromQueryResult)]
struct Known {
    id: SubscriptionId,
}

#[derive(FromQueryResult)]
struct Count {
    app_id: AppId,
    count: i64,
}

/// The callbacks that the tasks of a turn need.
#[derive(Default)]
pub(crate) struct Callbacks {
    known: BTreeSet<SubscriptionId>,
    counts: HashMap<AppId, i64>,
    new: BTreeMap<SubscriptionId, (AppId, String)>,
}

impl Callbacks {
    /// Reads which of these callbacks are there, and how many the apps have.
    pub(crate) async fn load(
        connection: &impl ConnectionTrait,
        wanted: BTreeSet<(AppId, String)>,
    ) -> Result<Self, StoreError> {
        let mut callbacks = Self::default();
        let apps: BTreeSet<&AppId> = wanted.iter().map(|(app, _)| app).collect();
        let apps: Vec<Vec<Value>> = apps.into_iter().map(|app| vec![app.clone().into()]).collect();
        let ids: Vec<Vec<Value>> = wanted
            .iter()
            .map(|(app, address)| vec![SubscriptionId::of_callback(app, address).into()])
            .collect();
        for some in ids.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text"], some);
            let text = format!(
                "with v(id) as ({values}) select id from subscription where id in (select id from v)"
            );
            let found: Vec<Known> = rows::all(connection, "subscription", &text, bound).await?;
            callbacks.known.extend(found.into_iter().map(|known| known.id));
        }
        for some in apps.chunks(LISTED_MAX) {
            let (values, bound) = list(connection, &["text"], some);
            let text = format!(
                "with v(app_id) as ({values}) select app_id, count(*) as count from subscription
                 where callback is not null and app_id in (select app_id from v) group by app_id"
            );
            let found: Vec<Count> = rows::all(connection, "subscription", &text, bound).await?;
            callbacks.counts.extend(found.into_iter().map(|count| (count.app_id, count.count)));
        }
        Ok(callbacks)
    }

    /// Whether an app may have callbacks to all of these addresses.
    pub(crate) fn has_room<'t>(&self, app: &AppId, addresses: impl Iterator<Item = &'t str>) -> bool {
        let is_new = |id: &SubscriptionId| !self.known.contains(id) && !self.new.contains_key(id);
        let more: BTreeSet<SubscriptionId> = addresses
            .map(|address| SubscriptionId::of_callback(app, address))
            .filter(|id| is_new(id))
            .collect();
        let count = self.counts.get(app).copied().unwrap_or(0);
        more.is_empty() || count.saturating_add_unsigned(more.len() as u64) <= signed(CALLBACKS_MAX)
    }

    /// Makes the callback to an address, if there is none. Returns its id.
    pub(crate) fn need(&mut self, app: &AppId, address: &str) -> SubscriptionId {
        let id = SubscriptionId::of_callback(app, address);
        if !self.known.contains(&id)
            && self.new.insert(id.clone(), (app.clone(), address.to_owned())).is_none()
        {
            *self.counts.entry(app.clone()).or_default() += 1;
        }
        id
    }

    /// Writes the new ones, in the order of their ids: replicas that make the same ones never wait for each
    /// other in a circle.
    pub(crate) async fn write(
        &self,
        connection: &impl ConnectionTrait,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        for (id, (app, address)) in &self.new {
            insert(connection, id, app, address, at).await?;
        }
        Ok(())
    }
}

async fn insert(
    connection: &impl ConnectionTrait,
    id: &SubscriptionId,
    app: &AppId,
    address: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sink = sink_of(id);
    let delivery = DeliverySettings::default();
    let delivery = serde_json::to_string(&delivery).map_err(|error| undecodable("sink", error))?;
    let text = "insert into sink (id, app_id, kind, address, delivery, since, created_at)
                values ($1, $2, 'endpoint', $3, $4, $5, $5) on conflict do nothing";
    let sent_to = codeq::address(address);
    let values = vec![sink.clone().into(), app.clone().into(), sent_to.into(), delivery.into(), at.0.into()];
    rows::execute(connection, "sink", text, values).await?;
    // A name that no person can give: it has a colon.
    let name = format!("callback:{}", id.ulid().to_string().to_ascii_lowercase());
    let text = "insert into subscription (id, app_id, name, filter, reads_rounds, sink_id, position, state,
                  tries, skips, created_at, callback)
                values ($1, $2, $3, $4, false, $5,
                  coalesce((select last from ledger where app_id = $2), 0), 'active', 0, 0, $6, $7)
                on conflict do nothing";
    let values = vec![
        id.clone().into(),
        app.clone().into(),
        name.into(),
        FILTER.into(),
        sink.into(),
        at.0.into(),
        address.into(),
    ];
    rows::execute(connection, "subscription", text, values).await.map(drop)
}

/// Removes callbacks whose address no open task names, that have nothing left to send, and that were last
/// written to a day ago. Paused ones stay. The others go on to the end of the ledger where nothing waits for
/// them, so that a look for subscriptions that are behind passes over them. How many were removed.
pub(crate) async fn forget(connection: &impl ConnectionTrait, at: Timestamp) -> Result<u64, StoreError> {
    let text = "update subscription set position =
                  (select l.last from ledger l where l.app_id = subscription.app_id)
                where callback is not null
                  and position < (select l.last from ledger l where l.app_id = subscription.app_id)
                  and not exists (select 1 from entry e
                    where e.recipient = subscription.id and e.number > subscription.position)";
    rows::execute(connection, "subscription", text, vec![]).await?;
    #[derive(FromQueryResult)]
    struct Unused {
        id: SubscriptionId,
        app_id: AppId,
    }
    let kept = i64::try_from(CALLBACK_KEPT.as_millis()).unwrap_or(i64::MAX);
    let text = "select s.id, s.app_id from subscription s
                where s.callback is not null and s.state <> 'paused' and s.created_at < $1
                  and not exists (select 1 from task t where t.app_id = s.app_id and t.callback = s.callback
                    and t.callback is not null and t.ended_at is null)
                  and not exists (select 1 from entry e where e.recipient = s.id
                    and (e.number > s.position or e.at >= $1))
                limit 100";
    let found: Vec<Unused> = rows::all(connection, "subscription", text, vec![(at.0 - kept).into()]).await?;
    for Unused { id, app_id } in &found {
        super::remove(connection, app_id, id).await?;
    }
    Ok(found.len() as u64)
}
