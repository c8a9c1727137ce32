//! Worker subscriptions as rows, and the work that they are to be told of.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    ports::{App, QueueWork, StoreError, WORKER_SUBSCRIPTIONS_MAX, WorkWords, WorkerSubscription},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId, WorkerSubscriptionId},
    worker_subscription,
};

use crate::{
    Context, apps,
    database::{
        error::undecodable,
        rows::{self, LISTED_MAX, list as listed, signed},
    },
    tasks::{self, queues::QueueToClaim},
};

/// Makes a worker subscription; `false`: the app has as many as it may have.
pub(crate) async fn create(
    connection: &impl ConnectionTrait,
    new: &WorkerSubscription,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let text = "select count(*) from worker_subscription where app_id = $1 and expires_at > $2";
    let values = vec![new.app.clone().into(), now.0.into()];
    if rows::number(connection, "worker_subscription", text, values).await?
        >= signed(WORKER_SUBSCRIPTIONS_MAX)
    {
        return Ok(false);
    }
    let commands = serde_json::to_string(&new.commands);
    let row = worker_subscription::Model {
        id: new.id.clone(),
        app_id: new.app.clone(),
        url: new.url.clone(),
        commands: commands.map_err(|error| undecodable("worker_subscription", error))?,
        group_name: new.group.clone(),
        min_interval_ms: milliseconds(new.min_interval),
        ttl_ms: milliseconds(new.ttl),
        expires_at: new.expires_at.0,
        created_at: new.created_at.0,
    };
    rows::insert(connection, "worker_subscription", vec![row]).await?;
    Ok(true)
}

/// Those of an app that have not ended, oldest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    after: Option<&WorkerSubscriptionId>,
    limit: u64,
    now: Timestamp,
) -> Result<Vec<WorkerSubscription>, StoreError> {
    let text = "select * from worker_subscription where app_id = $1 and id > $2 and expires_at > $3
                order by id limit $4";
    let after = after.map_or("", WorkerSubscriptionId::as_str);
    let values = vec![app.clone().into(), after.into(), now.0.into(), signed(limit).into()];
    let found: Vec<worker_subscription::Model> =
        rows::readable(connection, "worker_subscription", text, values).await?;
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// One of an app that has not ended.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &WorkerSubscriptionId,
    now: Timestamp,
) -> Result<WorkerSubscription, StoreError> {
    let text = "select * from worker_subscription where app_id = $1 and id = $2 and expires_at > $3";
    let values = vec![app.clone().into(), id.clone().into(), now.0.into()];
    let found: Option<worker_subscription::Model> =
        rows::one(connection, "worker_subscription", text, values).await?;
    found.map_or(Err(StoreError::NotFound), shown)
}

/// Lets one last longer: for this time from now on, or for its own.
pub(crate) async fn extend(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &WorkerSubscriptionId,
    ttl: Option<Duration>,
    now: Timestamp,
) -> Result<WorkerSubscription, StoreError> {
    let found = find(connection, app, id, now).await?;
    let ttl = ttl.unwrap_or(found.ttl);
    let text = "update worker_subscription set ttl_ms = $1, expires_at = $2 where app_id = $3 and id = $4";
    let expires_at = now.after(ttl);
    let values = vec![milliseconds(ttl).into(), expires_at.0.into(), app.clone().into(), id.clone().into()];
    rows::execute(connection, "worker_subscription", text, values).await?;
    Ok(WorkerSubscription { ttl, expires_at, ..found })
}

/// Removes one of an app.
pub(crate) async fn remove(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &WorkerSubscriptionId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let text = "delete from worker_subscription where app_id = $1 and id = $2 and expires_at > $3";
    let values = vec![app.clone().into(), id.clone().into(), now.0.into()];
    match rows::execute(connection, "worker_subscription", text, values).await? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

/// Removes those that have ended.
pub(crate) async fn forget(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), StoreError> {
    let text = "delete from worker_subscription where expires_at <= $1";
    rows::execute(connection, "worker_subscription", text, vec![now.0.into()]).await.map(drop)
}

/// The queues among these words that have work, with those who listen to them.
pub(crate) async fn work_for(
    connection: &impl ConnectionTrait,
    context: &Context,
    words: &WorkWords,
) -> Result<Vec<QueueWork>, StoreError> {
    let now = context.clock.now();
    let mut listeners: BTreeMap<QueueId, Vec<WorkerSubscription>> = BTreeMap::new();
    for subscription in listening(connection, words, now).await? {
        let commands: BTreeSet<&String> = subscription.commands.iter().collect();
        for queue in commands.into_iter().map(|command| QueueId::of(&subscription.app, command)) {
            if words.has(&subscription.app, &queue) {
                listeners.entry(queue).or_default().push(subscription.clone());
            }
        }
    }
    let queues: BTreeSet<QueueId> = listeners.keys().cloned().collect();
    let mut apps: BTreeMap<AppId, Option<App>> = BTreeMap::new();
    let mut work = Vec::new();
    for QueueToClaim { app: app_id, id: queue, command, ready, free_at } in
        tasks::with_work(connection, &queues, now).await?
    {
        if !apps.contains_key(&app_id) {
            let app = apps::find(connection, context, "id", app_id.clone().into()).await?;
            apps.insert(app_id.clone(), app);
        }
        let app = apps.get(&app_id).cloned().flatten();
        if let Some((app, subscriptions)) = app.zip(listeners.remove(&queue)) {
            work.push(QueueWork { app, queue, command, ready, free_at, subscriptions });
        }
    }
    Ok(work)
}

/// The worker subscriptions of the apps that the words name, oldest first.
async fn listening(
    connection: &impl ConnectionTrait,
    words: &WorkWords,
    now: Timestamp,
) -> Result<Vec<WorkerSubscription>, StoreError> {
    let mut found: Vec<worker_subscription::Model> = Vec::new();
    if words.all {
        let text = "select * from worker_subscription where expires_at > $1 order by id";
        found = rows::readable(connection, "worker_subscription", text, vec![now.0.into()]).await?;
    } else {
        let apps: BTreeSet<&AppId> = words.queues.iter().map(|(app, _)| app).collect();
        let apps: Vec<Vec<Value>> = apps.into_iter().map(|app| vec![app.clone().into()]).collect();
        for some in apps.chunks(LISTED_MAX) {
            let (values, mut bound) = listed(connection, &["text"], some);
            let place = bound.len() + 1;
            bound.push(now.0.into());
            let text = format!(
                "with v(id) as ({values}) select * from worker_subscription
                 where app_id in (select id from v) and expires_at > ${place} order by id"
            );
            found.extend(
                rows::readable::<worker_subscription::Model>(connection, "worker_subscription", &text, bound)
                    .await?,
            );
        }
    }
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn shown(row: worker_subscription::Model) -> Result<WorkerSubscription, StoreError> {
    let of_row = |error: String| undecodable("worker_subscription", error);
    let time = |milliseconds: i64| {
        u64::try_from(milliseconds).map(Duration::from_millis).map_err(|error| of_row(error.to_string()))
    };
    Ok(WorkerSubscription {
        commands: serde_json::from_str(&row.commands).map_err(|error| of_row(error.to_string()))?,
        min_interval: time(row.min_interval_ms)?,
        ttl: time(row.ttl_ms)?,
        id: row.id,
        app: row.app_id,
        url: row.url,
        group: row.group_name,
        expires_at: Timestamp(row.expires_at),
        created_at: Timestamp(row.created_at),
    })
}
