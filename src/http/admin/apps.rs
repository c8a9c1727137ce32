//! Apps, for the staff: all of them, one, and each thing that an app sees and does of its own, done
//! for it. Those routes are made from the app's: `/api/repositories/{id}` of an app is
//! `/api/admin/apps/{app_id}/repositories/{id}`, with the same bodies and answers.
//!
//! Left out are the app's own trade, which is to take its changes (`pending`, `settle`), and contents
//! of its files, which are nobody's else.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, StatusCode};
use tidings_actors::filter::sets;
use tidings_entity::id::AppId;
use utoipa::openapi::{
    ObjectBuilder, RefOr, Required, Type,
    path::{ParameterBuilder, ParameterIn},
};

use super::super::{
    apps::{self, AppShown},
    front::Front,
};
use crate::http::{
    bodies::{
        filters,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Caller, Request, json},
        route::{Access, Answer, Route, route},
    },
};

/// What the cursors of the list of apps are made for.
const APPS: &str = "admin apps";
/// What the staff does for no app, by the last part of the path.
const OWN_TRADE: [&str; 3] = ["pending", "settle", "{blob}"];

/// The routes of this file; `of_apps`: those that apps have for themselves.
pub(super) fn routes(of_apps: &[Route]) -> Vec<Route> {
    let own = [
        route::<__path_list, _, _>(Access::Viewer, list),
        route::<__path_show, _, _>(Access::Viewer, show),
        route::<__path_erase, _, _>(Access::Admin, erase),
    ];
    own.into_iter().chain(of_apps.iter().filter_map(for_an_app)).collect()
}

/// The same route, for the staff, who names the app; `None` where there is none.
fn for_an_app(route: &Route) -> Option<Route> {
    if route.access != Access::App || OWN_TRADE.iter().any(|word| route.template.ends_with(word)) {
        return None;
    }
    let (name, rest) = match route.template.strip_prefix("/api/app") {
        // What stands there for the staff already is written out above.
        Some("") if route.method == Method::PATCH => ("id", ""),
        Some("") => return None,
        Some(rest) if rest.starts_with('/') => ("app_id", rest),
        _ => ("app_id", route.template.strip_prefix("/api")?),
    };
    let template = format!("/api/admin/apps/{{{name}}}{rest}");
    let access = match (&route.method, rest) {
        (&Method::GET, _) => Access::Viewer,
        // Keys, credentials and tokens are the admins' business.
        // A registration may bring a credential along, and then it replaces or drops the one that is there.
        (_, "" | "/tokens" | "/tokens/{id}" | "/repositories" | "/repositories/{id}/token") => Access::Admin,
        (_, "/subscriptions" | "/subscriptions/{id}/rotate-key") => Access::Admin,
        (&Method::PATCH, "/subscriptions/{id}") => Access::Admin,
        _ => Access::Operator,
    };
    let mut operation = route.operation.clone();
    operation.tags = Some(vec!["admin".to_owned()]);
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .description(Some("the app"))
        .build();
    operation.parameters.get_or_insert_default().insert(0, RefOr::T(parameter));
    let handler = route.handler.clone();
    Some(Route {
        template,
        access,
        operation,
        handler: Arc::new(move |front: Arc<Front>, mut request: Request| {
            let handler = handler.clone();
            async move {
                let id: AppId = request.id(Kind::NO_APP)?;
                let app = front.store.app(&id).await;
                let app = app.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
                request.caller = Caller::App(Box::new(app.ok_or_else(|| Problem::new(Kind::NO_APP))?));
                request.parameters.remove(0);
                handler(front, request).await
            }
            .boxed()
        }),
        ..route.clone()
    })
}

/// All apps, oldest first.
#[utoipa::path(get, path = "/api/admin/apps", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "only what this filter means; see docs/filters.md"),
    ),
    responses(
        (status = 200, body = Page<AppShown>)
    ))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor", "q"])?;
    let limit = query.limit()?;
    let after = query.after(APPS)?;
    let apps = match filters::of_query(&query, &sets::APPS, front.clock.now())? {
        None => front.store.apps(after.as_ref(), limit + 1).await,
        Some(q) => front.administration.filtered_apps(&q, after.as_ref(), limit + 1).await,
    };
    let apps = apps.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    Ok(json(StatusCode::OK, &page(apps, limit, APPS, |app| app.id.to_string(), AppShown::of)))
}

/// One app.
#[utoipa::path(get, path = "/api/admin/apps/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, body = AppShown)
))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let id: AppId = request.id(Kind::NO_APP)?;
    let app = front.store.app(&id).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    let app = app.ok_or_else(|| Problem::new(Kind::NO_APP))?;
    Ok(json(StatusCode::OK, &AppShown::with_endpoint(&front, &app).await?))
}

/// Erases an app with everything that is known of it.
#[utoipa::path(delete, path = "/api/admin/apps/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204)
))]
async fn erase(front: Arc<Front>, request: Request) -> Answer {
    let id: AppId = request.id(Kind::NO_APP)?;
    if front.store.app(&id).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?.is_none() {
        return Err(Problem::new(Kind::NO_APP));
    }
    apps::erase(&front, &id).await
}
