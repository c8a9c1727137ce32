//! The trees of a watch that mirrors keep: for all its cursors the held tree, both ends of the open round,
//! and the bases of an open or coming resync.

use std::collections::{HashMap, hash_map::Entry};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::round::TreeEnd,
    model::view::View,
    ports::{PinnedTrees, StoreError},
};
use tidings_entity::id::{AppId, ObjectId, ViewId, WatchId};

use super::{resync, views};
use crate::{
    Context,
    database::rows,
    watching::{sources, watches},
};

#[derive(FromQueryResult)]
struct Pinned {
    commit_id: ObjectId,
    view_id: ViewId,
    text: String,
}

#[derive(FromQueryResult)]
struct HeldCommitRow {
    branch: String,
    commit_id: Option<ObjectId>,
    text: Option<String>,
}

/// The pinned trees of one watch of an app.
pub(crate) async fn trees(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &WatchId,
) -> Result<PinnedTrees, StoreError> {
    let watch = watches::row(connection, app, id).await?;
    let remote = sources::remote(connection, context, &watch).await?;
    let open = "join round r on r.cursor_id = c.id and r.number = c.open_round";
    let text = format!(
        "select p.commit_id, p.view_id, v.text from (
           select c.held as commit_id, c.held_view as view_id from cursor c where c.watch_id = $1
           union select c.replay, c.replay_view from cursor c where c.watch_id = $1
           union select r.held, r.held_view from cursor c {open} where c.watch_id = $1
           union select r.target, r.target_view from cursor c {open} where c.watch_id = $1
           union select b.commit_id, b.view_id from cursor c join round_base b on b.cursor_id = c.id
             where c.watch_id = $1 and (b.round = {} or b.round = c.open_round)
         ) p join view v on v.id = p.view_id where p.commit_id is not null",
        resync::TO_COME
    );
    let values: Vec<Value> = vec![id.clone().into()];
    let pinned: Vec<Pinned> = rows::all(connection, "cursor", &text, values).await?;
    let mut views: HashMap<ViewId, View> = HashMap::new();
    let mut ends = Vec::with_capacity(pinned.len());
    for Pinned { commit_id, view_id, text } in pinned {
        let view = match views.entry(view_id) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unread) => unread.insert(views::view(&text)?).clone(),
        };
        ends.push(TreeEnd { commit: commit_id, view });
    }
    let text = "select c.branch, c.held as commit_id, v.text from cursor c
                left join view v on v.id = c.held_view where c.watch_id = $1 order by c.slot";
    let branches: Vec<HeldCommitRow> = rows::all(connection, "cursor", text, vec![id.clone().into()]).await?;
    let held = branches.into_iter().map(|row| {
        let end = row.commit_id.zip(row.text);
        let end = end.map(|(commit, text)| Ok(TreeEnd { commit, view: views::view(&text)? }));
        Ok((row.branch, end.transpose()?))
    });
    Ok(PinnedTrees { remote, ends, held: held.collect::<Result<_, _>>()? })
}
