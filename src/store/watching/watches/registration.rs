//! Registers watches, replaces their credentials, and removes them: each call finds or creates repository,
//! credential and source, and removes those that are no longer used.

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tidings_actors::{
    model::secret::Secret,
    ports::{NewWatch, RefListing, Start, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, SourceId, ViewId, WatchId},
    kind::{EntryType, WatchState},
    watch,
};

use super::{resync, views};
use crate::{
    Context,
    apps::sinks,
    database::rows,
    ledger::{self, told},
    tasks,
    watching::{
        sources::{self, heads, known},
        statuses, watches,
    },
};

/// Registers a watch, or replaces the settings of the existing one with the same app, repository, selector
/// and alias, serves it again and requests its resync. Returns its id.
/// [`StoreError::Exists`] where it may not replace them.
pub(crate) async fn register(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: &NewWatch,
) -> Result<WatchId, StoreError> {
    let at = new.created_at;
    let text = "select count(*) from app where id = $1";
    if rows::number(connection, "app", text, vec![new.app.clone().into()]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    let repository = sources::repository(connection, context, &new.url, at).await?;
    let source =
        sources::source(connection, context, &new.app, &repository, new.credential.as_ref(), at).await?;
    let view = views::keep(connection, &new.view, at).await?;
    let text = "select * from watch where app_id = $1 and repository_id = $2
                and selector_kind = $3 and selector_value = $4 and alias = $5";
    let values = vec![
        new.app.clone().into(),
        repository.clone().into(),
        new.selector.kind.into(),
        new.selector.value.clone().into(),
        new.alias.clone().into(),
    ];
    if let Some(old) = rows::one::<watch::Model>(connection, "watch", text, values).await? {
        if !new.may_replace {
            return Err(StoreError::Exists(old.id.to_string()));
        }
        replace(connection, context, new, old, &source, view).await
    } else {
        let row = watch::Model {
            id: new.id.clone(),
            app_id: new.app.clone(),
            repository_id: repository,
            source_id: source.clone(),
            shown_url: new.facts.github_url.clone(),
            owner: new.facts.owner.clone(),
            name: new.facts.name.clone(),
            is_private: new.is_private,
            selector_kind: new.selector.kind,
            selector_value: new.selector.value.clone(),
            view_id: view,
            mode: new.mode,
            on_branch_gone: new.on_branch_gone,
            state: WatchState::Active,
            reason: None,
            deliver_after: new.deliver_after.0,
            created_at: at.0,
            alias: new.alias.clone(),
            sink_id: None,
            status_host: None,
            status_context: None,
        };
        rows::insert(connection, "watch", vec![row.clone()]).await?;
        sinks::give(connection, context, &row, new.sink.as_ref(), at).await?;
        statuses::set(connection, context, &row, new.status, at).await?;
        begin(connection, context, new, &source, view).await?;
        Ok(new.id.clone())
    }
}

/// Creates the cursor of a single branch and writes the heads of the proof.
async fn begin(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: &NewWatch,
    source: &SourceId,
    view: ViewId,
) -> Result<(), StoreError> {
    let at = new.created_at;
    let start: Option<(ObjectId, ViewId)> = match new.start {
        Start::All => None,
        Start::At(commit) => Some((commit, view)),
    };
    let head = match &new.listing.head {
        Some(head) => Some(head.clone()),
        None => known::known(connection, source).await?.head_ref,
    };
    if let Some(branch) = new.selector.single_ref(head.as_deref()) {
        let id = CursorId::new(context.random.ulid(at));
        let cursor = heads::new_cursor(id, &new.id, &branch, start, at);
        rows::insert(connection, "cursor", vec![cursor]).await?;
    }
    heads::prove(connection, context, source, &new.id, &new.listing, start, at).await
}

/// Gives an existing watch new settings, serves it again and asks for a resync.
async fn replace(
    connection: &impl ConnectionTrait,
    context: &Context,
    new: &NewWatch,
    old: watch::Model,
    source: &SourceId,
    view: ViewId,
) -> Result<WatchId, StoreError> {
    let text = "update watch set source_id = $1, owner = $2, name = $3, is_private = $4, view_id = $5,
                mode = $6, deliver_after = $7, on_branch_gone = $8 where id = $9";
    let values = vec![
        source.clone().into(),
        new.facts.owner.clone().into(),
        new.facts.name.clone().into(),
        new.is_private.into(),
        view.into(),
        new.mode.into(),
        new.deliver_after.0.into(),
        new.on_branch_gone.into(),
        old.id.clone().into(),
    ];
    rows::execute(connection, "watch", text, values).await?;
    sinks::set(connection, context, &old, new.sink.as_ref(), new.created_at).await?;
    heads::prove(connection, context, source, &old.id, &new.listing, None, new.created_at).await?;
    serve_again(connection, context, &old.id, new.created_at).await?;
    resync::of_watch(connection, context, &old.id, false, new.created_at).await?;
    statuses::set(connection, context, &old, new.status, new.created_at).await?;
    statuses::carry_on(connection, context, &old.id, new.created_at).await?;
    if old.source_id != *source {
        sources::remove_unused(connection, &old.source_id).await?;
    }
    Ok(old.id)
}

/// Ends the pause of a watch.
async fn serve_again(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &WatchId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update watch set state = 'active', reason = null where id = $1 and state <> 'active'";
    if rows::execute(connection, "watch", text, vec![id.clone().into()]).await? > 0 {
        let note = told::paused(connection, id, EntryType::WatchResumed, None).await?;
        ledger::write_unheard(connection, &*context.random, vec![note], at).await?;
    }
    Ok(())
}

/// Points a watch at the source of another credential.
pub(crate) async fn replace_credential(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &WatchId,
    credential: Option<&Secret>,
    listing: &RefListing,
    at: Timestamp,
) -> Result<(), StoreError> {
    let old = watches::row(connection, app, id).await?;
    let source = sources::source(connection, context, app, &old.repository_id, credential, at).await?;
    let text = "update watch set source_id = $1 where id = $2";
    rows::execute(connection, "watch", text, vec![source.clone().into(), id.clone().into()]).await?;
    heads::prove(connection, context, &source, id, listing, None, at).await?;
    statuses::carry_on(connection, context, id, at).await?;
    if old.source_id != source {
        sources::remove_unused(connection, &old.source_id).await?;
    }
    Ok(())
}

/// Removes a watch and the rows that only it used. Returns whether a round of it was open.
pub(crate) async fn unwatch(
    transaction: &DatabaseTransaction,
    context: &Context,
    app: &AppId,
    id: &WatchId,
) -> Result<bool, StoreError> {
    let old = watches::row(transaction, app, id).await?;
    statuses::farewell_to_watch(transaction, context, id, context.clock.now()).await?;
    let text = "select count(*) from cursor where watch_id = $1 and open_round is not null";
    let open = rows::number(transaction, "cursor", text, vec![id.clone().into()]).await?;
    let text = "delete from attempt where owner_kind = 'cursor'
                and owner_id in (select id from cursor where watch_id = $1)";
    rows::execute(transaction, "attempt", text, vec![id.clone().into()]).await?;
    tasks::remove_of_watch(transaction, context, id).await?;
    tasks::remove_schedules_of_watch(transaction, id).await?;
    rows::execute(transaction, "watch", "delete from watch where id = $1", vec![id.clone().into()]).await?;
    sinks::remove(transaction, old.sink_id.as_ref()).await?;
    sources::remove_unused(transaction, &old.source_id).await?;
    Ok(open > 0)
}

/// Shortens the wait of a watch for its first delivery: it ends at this moment at the latest.
pub(crate) async fn deliver_no_later(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    latest: Timestamp,
) -> Result<(), StoreError> {
    let text = "update watch set deliver_after = $1 where id = $2 and deliver_after > $1";
    rows::execute(connection, "watch", text, vec![latest.0.into(), watch.clone().into()]).await.map(drop)
}
