//! Views: the paths of a repository that an app gets. The id of a view is the hash of its text, so a row
//! never changes.

use sea_orm::ConnectionTrait;
use tidings_actors::{model::view::View, ports::StoreError, time::Timestamp};
use tidings_entity::id::ViewId;

use crate::database::{error::undecodable, rows};

/// A view from its stored text.
pub(crate) fn view(text: &str) -> Result<View, StoreError> {
    serde_json::from_str(text).map_err(|error| undecodable("view", error))
}

/// Writes a view if it is new. Returns its id.
pub(crate) async fn keep(
    connection: &impl ConnectionTrait,
    view: &View,
    at: Timestamp,
) -> Result<ViewId, StoreError> {
    let text = "insert into view (id, text, created_at) values ($1, $2, $3) on conflict (id) do nothing";
    let values = vec![view.id().into(), view.canonical().into(), at.0.into()];
    rows::execute(connection, "view", text, values).await?;
    Ok(view.id())
}
