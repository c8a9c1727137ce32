//! Apps, for the staff: all apps, one app, and each route that an app uses for itself, used on behalf of that
//! app. The latter are derived from the app's routes: `/api/repositories/{id}` of an app becomes
//! `/api/admin/apps/{app_id}/repositories/{id}`, with the same bodies and answers.
//!
//! They require the same permission. Routes whose permission no staff role has are left out: those by which
//! an app takes its changes and its tasks. Contents of files are for operators, who may also send them again.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, StatusCode};
use tidings_actors::model::filter::sets;
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
        route::{Access, Answer, Permission, Route, route},
    },
};

/// The name of the list of apps in its cursors.
const APPS: &str = "admin apps";

/// The routes of this file; `of_apps`: the routes that apps use for themselves.
pub(super) fn routes(of_apps: &[Route]) -> Vec<Route> {
    let own = [
        route::<__path_list, _, _>(Access::Staff(Permission::AppsRead), list),
        route::<__path_show, _, _>(Access::Staff(Permission::AppsRead), show),
        route::<__path_erase, _, _>(Access::Staff(Permission::AppsErase), erase),
    ];
    own.into_iter().chain(of_apps.iter().filter_map(for_an_app)).collect()
}

/// The same route for the staff, with the app in the path; `None`: the route is not about one app, or not for
/// the staff.
fn for_an_app(route: &Route) -> Option<Route> {
    let (Access::App(permission) | Access::Holder(permission)) = route.access else { return None };
    permission.least_role()?;
    let (name, rest) = match route.template.strip_prefix("/api/app") {
        // These routes exist for the staff already, and are written out above.
        Some("") if route.method == Method::PATCH => ("id", ""),
        Some("") => return None,
        Some(rest) if rest.starts_with('/') => ("app_id", rest),
        _ => ("app_id", route.template.strip_prefix("/api")?),
    };
    let template = format!("/api/admin/apps/{{{name}}}{rest}");
    let mut operation = route.operation.clone();
    operation.tags = Some(vec!["admin".to_owned()]);
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .description(Some("Id of the app, `app_...`."))
        .build();
    operation.parameters.get_or_insert_default().insert(0, RefOr::T(parameter));
    let handler = route.handler.clone();
    Some(Route {
        template,
        access: Access::Staff(permission),
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

/// Lists all apps, oldest first.
#[utoipa::path(get, path = "/api/admin/apps", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
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

/// Shows the app with this id.
#[utoipa::path(get, path = "/api/admin/apps/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 200, body = AppShown)
))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let id: AppId = request.id(Kind::NO_APP)?;
    let app = front.store.app(&id).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    let app = app.ok_or_else(|| Problem::new(Kind::NO_APP))?;
    Ok(json(StatusCode::OK, &AppShown::with_endpoint(&front, &app).await?))
}

/// Erases an app and everything that is stored about it.
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
