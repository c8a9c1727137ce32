//! The own sinks of watches and subscriptions: set, read, disabled, removed with them.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{DeliverySettings, GONE, NewSink, OwnSink, SinkKey, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    app,
    id::{AppId, SinkId},
    kind::{EntryType, PayloadFormat, SinkKind},
    sink, watch,
};
use tidings_secrets::SealedField;

use super::access;
use crate::{
    Context, apps,
    database::{error::undecodable, rows},
    ledger::told,
    watching::statuses,
};

/// Whether the sink of a watch is served: an app that is disabled because its own endpoint is gone
/// ([`GONE`](tidings_actors::ports::GONE)) does not disable the own sink of a watch.
pub(crate) const SERVED: &str = "(case when w.sink_id is null then a.disabled is null
     else k.disabled is null and (a.disabled is null or a.disabled = 'the endpoint answered 410 Gone') end)";

/// Counts the disabled sinks of watches and subscriptions. A callback is not counted: its subscription ends
/// by itself.
pub(crate) const SINKS_DISABLED: &str =
    "select count(*) from sink k where k.disabled is not null and not exists
     (select 1 from subscription s where s.sink_id = k.id and s.callback is not null)";
/// Whether nothing is handed out to the workers of an app: it is disabled, and not only because its own
/// endpoint is gone.
pub(crate) const STOPPED: &str =
    "(a.disabled is not null and a.disabled <> 'the endpoint answered 410 Gone')";

/// Gives a watch another sink than it has, as [`give`] does. Whether changes become tasks is decided when a
/// watch is made: rows of an open round could not follow.
pub(crate) async fn set(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &watch::Model,
    new: Option<&NewSink>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let old = match &watch.sink_id {
        Some(id) => row(connection, &watch.app_id, id).await?,
        None => None,
    };
    let makes_tasks = new.is_some_and(|new| new.address.kind() == SinkKind::Tasks);
    let old_delivery = old.as_ref().map(|old| old.delivery.clone());
    if makes_tasks != old.is_some_and(|old| old.kind == SinkKind::Tasks) {
        return Err(StoreError::Conflict(
            "a watch whose changes become tasks cannot get another kind of sink, and no other watch can get \
             the sink tasks: add another watch of the repository, with a watch_name"
                .to_owned(),
        ));
    }
    let per_round = |delivery: &DeliverySettings| makes_tasks && delivery.per_round;
    if let (Some(new), Some(delivery)) = (new, old_delivery)
        && per_round(&new.delivery) != per_round(&apps::settings("sink", &delivery)?)
    {
        return Err(StoreError::Conflict(
            "whether each change or each round becomes a task is decided when the repository is added: add \
             another watch of it, with a watch_name"
                .to_owned(),
        ));
    }
    give(connection, context, watch, new, at).await
}

/// Gives a watch its own sink, or (`None`) lets it use that of its app. An existing own sink keeps its id and
/// its signing key, and is enabled.
pub(crate) async fn give(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &watch::Model,
    new: Option<&NewSink>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let Some(new) = new else {
        if watch.sink_id.is_none() {
            return Ok(());
        }
        point(connection, watch, None).await?;
        let text = "select * from app where id = $1";
        let app: Option<app::Model> =
            rows::one(connection, "app", text, vec![watch.app_id.clone().into()]).await?;
        let app = app.ok_or(StoreError::NotFound)?;
        let format = apps::settings("app", &app.delivery)?.format_at(&SinkAddress::of(app.base_url));
        reformat(connection, "w.id = $2", watch.id.as_str(), format).await?;
        return remove(connection, watch.sink_id.as_ref()).await;
    };
    let old = match &watch.sink_id {
        Some(id) => Some(row(connection, &watch.app_id, id).await?.ok_or(StoreError::NotFound)?),
        None => None,
    };
    let was = old.as_ref().map(|old| old.kind);
    let id = put(connection, context, &watch.app_id, old, new, at).await?;
    if was.is_none() {
        point(connection, watch, Some(&id)).await?;
    }
    if was != Some(new.address.kind()) {
        let format = new.delivery.format_at(&new.address);
        reformat(connection, "w.id = $2", watch.id.as_str(), format).await?;
    }
    Ok(())
}

/// Gives the open rounds of the watches for which `condition` (over `w` and `$2`) holds the format of the
/// sink that their changes go to from now on: their ids stay, and a stream never carries another format than
/// CloudEvents.
pub(crate) async fn reformat(
    connection: &impl ConnectionTrait,
    condition: &str,
    id: &str,
    format: PayloadFormat,
) -> Result<(), StoreError> {
    let text = format!(
        "update round set format = $1 where (cursor_id, number) in
           (select c.id, c.open_round from cursor c join watch w on w.id = c.watch_id
            where c.open_round is not null and {condition})"
    );
    rows::execute(connection, "round", &text, vec![format.into(), id.into()]).await.map(drop)
}

/// Replaces a sink, which keeps its id and signing key. Returns its id.
pub(crate) async fn put(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    old: Option<sink::Model>,
    new: &NewSink,
    at: Timestamp,
) -> Result<SinkId, StoreError> {
    let id = old.as_ref().map_or(&new.id, |old| &old.id).clone();
    let signing_key = match old.as_ref().and_then(|old| old.signing_key.clone()) {
        Some(sealed) => Some(sealed),
        None => new.signing_key.as_ref().map(|key| seal(context, &id, key)),
    };
    let address = new.address.row_address().map(str::to_owned);
    let since = old.as_ref().map_or(at.0, |old| match old.address == address && old.disabled.is_none() {
        true => old.since,
        false => at.0.max(old.since + 1),
    });
    let next = sink::Model {
        app_id: app.clone(),
        kind: new.address.kind(),
        address,
        access: access::seal(context, &access_place(id.as_str()), &new.access)?,
        signing_key,
        former_key: None,
        former_until: None,
        delivery: serde_json::to_string(&new.delivery).map_err(|error| undecodable("sink", error))?,
        disabled: None,
        since,
        created_at: old.as_ref().map_or(at.0, |old| old.created_at),
        id,
    };
    if old.is_none() {
        let id = next.id.clone();
        rows::insert(connection, "sink", vec![next]).await?;
        return Ok(id);
    }
    if old.is_some_and(|old| old.disabled.is_some()) {
        let note = told::sink_used(connection, app, Some(&next.id), EntryType::SinkEnabled, None).await?;
        told::now(connection, context, note).await?;
    }
    let id = next.id.clone();
    let text = "update sink set kind = $1, address = $2, access = $3, signing_key = $4, delivery = $5,
                disabled = null, since = $6 where id = $7";
    let values = vec![
        next.kind.into(),
        next.address.into(),
        next.access.into(),
        next.signing_key.into(),
        next.delivery.into(),
        next.since.into(),
        next.id.into(),
    ];
    rows::execute(connection, "sink", text, values).await.map(|_| id)
}

/// Serves a sink again that was disabled.
pub(crate) async fn enable(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &SinkId,
    at: Timestamp,
) -> Result<(), StoreError> {
    // Its breaker, and earlier answers, do not apply to the new address.
    let text = "update sink set disabled = null, since = case when since < $2 then $2 else since + 1 end
                where id = $1 and disabled is not null";
    if rows::execute(connection, "sink", text, vec![id.clone().into(), at.0.into()]).await? == 0 {
        return Ok(());
    }
    let note = told::sink_used(connection, app, Some(id), EntryType::SinkEnabled, None).await?;
    told::now(connection, context, note).await
}

/// Gives a sink a new signing key; the previous key signs beside it until `until`. A key older than that
/// signs no more.
pub(crate) async fn rotate(
    connection: &impl ConnectionTrait,
    context: &Context,
    sink: &sink::Model,
    key: &Secret,
    until: Timestamp,
) -> Result<(), StoreError> {
    let place = key_place(sink.id.as_str());
    let former = match &sink.signing_key {
        // A sealed value is bound to its column, so the key is sealed again for the other column.
        Some(sealed) => {
            let opened = context.keyring.open_sealed(&place, sealed);
            let opened = opened.map_err(|error| undecodable("sink", error))?;
            Some(context.keyring.seal(&former_place(sink.id.as_str()), &opened, &*context.random))
        }
        None => None,
    };
    let text = "update sink set signing_key = $1, former_key = $2, former_until = $3 where id = $4";
    let until = former.as_ref().map(|_| until.0);
    let values =
        vec![seal(context, &sink.id, key).into(), former.into(), until.into(), sink.id.clone().into()];
    rows::execute(connection, "sink", text, values).await.map(drop)
}

async fn point(
    connection: &impl ConnectionTrait,
    watch: &watch::Model,
    sink: Option<&SinkId>,
) -> Result<(), StoreError> {
    let text = "update watch set sink_id = $1 where id = $2";
    let values = vec![sink.cloned().into(), watch.id.clone().into()];
    rows::execute(connection, "watch", text, values).await.map(drop)
}

/// Removes a sink that no watch and no subscription has any more, with its breaker.
pub(crate) async fn remove(connection: &impl ConnectionTrait, id: Option<&SinkId>) -> Result<(), StoreError> {
    let Some(id) = id else { return Ok(()) };
    let of_breaker = "delete from breaker where kind = 'endpoint' and id = $1";
    rows::execute(connection, "breaker", of_breaker, vec![id.clone().into()]).await?;
    rows::execute(connection, "sink", "delete from sink where id = $1", vec![id.clone().into()])
        .await
        .map(drop)
}

/// A sink as it is served.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &SinkId,
) -> Result<Option<OwnSink>, StoreError> {
    let Some(row) = row(connection, app, id).await? else { return Ok(None) };
    let place = key_place(id.as_str());
    let open = |sealed: &Vec<u8>| -> Result<Secret, StoreError> {
        context.keyring.open_sealed(&place, sealed).map_err(|error| undecodable("sink", error))
    };
    let now = context.clock.now().0;
    let former = row.former_key.as_ref().filter(|_| row.former_until.is_some_and(|until| until > now));
    let former = former.map(|sealed| context.keyring.open_sealed(&former_place(id.as_str()), sealed));
    Ok(Some(OwnSink {
        former_key: former.transpose().map_err(|error| undecodable("sink", error))?,
        address: address(row.kind, row.address)?,
        signing_key: row.signing_key.as_ref().map(open).transpose()?,
        access: Arc::new(access::open(context, &access_place(id.as_str()), row.access.as_deref())?),
        delivery: apps::settings("sink", &row.delivery)?,
        disabled: row.disabled,
        since: Timestamp(row.since),
        id: row.id,
    }))
}

/// Disables a sink that answered 410, if it still has the address that was asked. An app that a person
/// disabled keeps that reason: an answer to an earlier attempt must not let its other sinks and its workers
/// go on.
pub(crate) async fn disable_gone(
    connection: &impl ConnectionTrait,
    context: &Context,
    key: &SinkKey,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let text = match key.sink {
        Some(_) => "update sink set disabled = $1 where id = $2 and since = $3 and disabled is null",
        None => "update app set disabled = $1 where id = $2 and endpoint_since = $3 and disabled is null",
    };
    let values = vec![GONE.into(), key.id().into(), since.0.into()];
    let is_disabled = rows::execute(connection, "sink", text, values).await? > 0;
    if is_disabled {
        let note = told::gone(connection, key, GONE).await?;
        told::now(connection, context, note).await?;
        statuses::refresh_app(connection, context, &key.app).await?;
    }
    Ok(is_disabled)
}

/// The address in a row.
pub(crate) fn address(kind: SinkKind, address: Option<String>) -> Result<SinkAddress, StoreError> {
    let missing = || undecodable("sink", format!("a sink of the kind {kind} has no address"));
    SinkAddress::of_row(kind, address).ok_or_else(missing)
}

/// The app of a sink, and the name of the subscription that sends to it.
pub(crate) async fn owner(
    connection: &impl ConnectionTrait,
    id: &SinkId,
) -> Result<Option<(AppId, Option<String>)>, StoreError> {
    #[derive(FromQueryResult)]
    struct Owner {
        app_id: AppId,
        name: Option<String>,
    }
    let text =
        "select k.app_id, s.name from sink k left join subscription s on s.sink_id = k.id where k.id = $1";
    let found: Option<Owner> = rows::one(connection, "sink", text, vec![id.clone().into()]).await?;
    Ok(found.map(|owner| (owner.app_id, owner.name)))
}

pub(crate) async fn row(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &SinkId,
) -> Result<Option<sink::Model>, StoreError> {
    let text = "select * from sink where id = $1 and app_id = $2";
    rows::one(connection, "sink", text, vec![id.clone().into(), app.clone().into()]).await
}

fn seal(context: &Context, id: &SinkId, key: &Secret) -> Vec<u8> {
    context.keyring.seal(&key_place(id.as_str()), key, &*context.random)
}

fn access_place(row: &str) -> SealedField<'_> {
    SealedField { table: "sink", column: "access", row }
}

fn key_place(row: &str) -> SealedField<'_> {
    SealedField { table: "sink", column: "signing_key", row }
}

fn former_place(row: &str) -> SealedField<'_> {
    SealedField { table: "sink", column: "former_key", row }
}
