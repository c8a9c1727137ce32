//! Dead letters of all apps, with their app and the answers of the receivers.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::DeadLetter;
use tidings_entity::id::AppId;
use utoipa::ToSchema;

use super::super::{
    deliveries::dead_letters::{self, DeadLetterShown, search::PageOfLetters},
    front::Front,
};
use crate::http::{
    bodies::{
        names::Names,
        paging::{Page, cursor_at},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The name of the list in its cursors.
const LETTERS: &str = "admin dead letters";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let list = route::<__path_list, _, _>(Access::Staff(Permission::DeadLettersRead), list);
    vec![list.with_parameters_of::<dead_letters::__path_list>()]
}

/// A dead letter of an app. `/api/admin/apps/{app_id}/dead-letters/{id}` shows its attempts; routes below
/// that path redrive and dismiss the dead letter.
#[derive(Serialize, ToSchema)]
struct LetterOfApp {
    app_id: String,
    app_name: String,
    /// `owner/name`, or the path of a local repository. Null: the app does not watch the repository any more.
    repository: Option<String>,
    #[serde(flatten)]
    letter: DeadLetterShown,
}

/// Lists the dead letters of all apps, newest first. A request reads about 10,000 dead letters at most: a
/// page may have fewer items than `limit`, or none, and still a `next_cursor`.
#[utoipa::path(get, path = "/api/admin/dead-letters", tag = "admin",
    params(("app_id" = Option<String>, Query, description = "Only dead letters of this app (`app_...`).")),
    responses((status = 200, body = Page<LetterOfApp>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let asked = PageOfLetters::of(&front, &request, LETTERS, &["app_id"])?;
    let app = asked.query.get("app_id").map(str::parse::<AppId>).transpose();
    let app = app.map_err(|_| Problem::malformed("app_id must be the id of an app: app_..."))?;
    let PageOfLetters { filter, before, limit, .. } = &asked;
    let found = front.administration.all_dead_letters(app.as_ref(), filter, before.as_ref(), *limit).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NO_DEAD_LETTER))?;
    let letters: Vec<&DeadLetter> = found.letters.iter().map(|(_, letter)| letter).collect();
    let shown = DeadLetterShown::all(&front, &letters).await?;
    let mut names = Names::of(&front);
    let mut items = Vec::with_capacity(shown.len());
    for ((app, row), letter) in found.letters.iter().zip(shown) {
        items.push(LetterOfApp {
            app_id: app.to_string(),
            app_name: names.app(app).await?.name,
            repository: names.repository(app, &row.watch).await?,
            letter,
        });
    }
    let next_cursor = found.next.map(|last| cursor_at(LETTERS, last.as_str()));
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}
