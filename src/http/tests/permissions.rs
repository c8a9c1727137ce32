//! Each route asks for one permission: every route, asked by tokens with that permission alone, with every
//! other one, and with none of it; and the life of a narrowed token.

mod narrowed;

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};
use tidings_actors::{
    model::permission::{Permission, PermissionSet, narrowing::Narrowing},
    ports::{Administration, Clock, TokenOwner},
    time::Timestamp,
};
use tokio::time::{Instant, sleep};

use super::{
    super::table,
    House,
    house::{ADMIN, Answered, PATIENCE},
    identity::{Whose, World, harm, made},
};
use crate::{
    http::{
        bodies::moment::iso,
        door::route::{Access, Route},
    },
    identity::WRITTEN_EVERY,
    machine::MachineClock,
    settings::RoleSettings,
};

/// The routes that need no permission, for they show and change nothing but what belongs to the caller or to
/// everybody: written out, so that a new one is seen.
const WITHOUT_PERMISSION: [&str; 28] = [
    "GET /",
    "GET /api/session",
    "GET /api/session/callback",
    "GET /api/session/issuers",
    "GET /api/session/issuers/{name}",
    "POST /api/session",
    "DELETE /api/session",
    "DELETE /api/sessions",
    "GET /dashboard",
    "GET /dashboard/",
    "GET /dashboard/assets/{version}/{file}",
    "GET /dashboard/assets/{version}/{folder}/{file}",
    "GET /dashboard/{page}",
    "GET /docs",
    "GET /docs/{file}",
    "GET /health",
    "GET /livez",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "GET /v1/codeq/raft/status",
    "GET /version",
    "POST /hooks/gitea",
    "POST /hooks/gitea/{id}",
    "POST /hooks/github",
    "POST /hooks/github/{id}",
    "POST /hooks/gitlab",
    "POST /hooks/gitlab/{id}",
];

fn name(route: &Route) -> String {
    format!("{} {}", route.method, route.template)
}

#[test]
fn every_route_names_its_permission() {
    let document = serde_json::to_value(crate::http::document::document(table())).expect("JSON");
    let mut without: Vec<String> = Vec::new();
    for route in table() {
        let method = route.method.as_str().to_lowercase();
        let told = &document["paths"][&route.template][&method]["x-permission"];
        match route.access.permission() {
            Some(permission) => assert_eq!(told, permission.as_str(), "{}", name(&route)),
            None => {
                assert!(told.is_null(), "{}", name(&route));
                without.push(name(&route));
            }
        }
    }
    without.sort();
    let mut expected = WITHOUT_PERMISSION.map(str::to_owned);
    expected.sort();
    assert_eq!(without, expected);
    let routes = table();
    for permission in Permission::ALL {
        let asks = |route: &Route| route.access.permission() == Some(*permission);
        assert!(routes.iter().any(asks), "{permission} opens nothing");
        let of_staff = routes.iter().any(|route| asks(route) && route.access.role().is_some());
        assert_eq!(of_staff, permission.least_role().is_some(), "{permission}");
        let of_apps = routes.iter().any(|route| asks(route) && route.access.is_of_apps());
        assert_eq!(of_apps, permission.is_of_apps(), "{permission}");
    }
}

/// `callers.txt` was written before there were permissions: roles and tokens of that time open the same
/// routes. A new route adds a line.
#[test]
fn roles_and_tokens_of_before_open_what_they_opened() {
    let mut told: Vec<String> = table()
        .iter()
        .map(|route| {
            let who = match (route.access, route.access.role()) {
                (_, Some(role)) => role.as_str(),
                (Access::App(_) | Access::Holder(_), _) => "app",
                (Access::Anybody, _) => "any token",
                _ => "anyone",
            };
            format!("{who:9} {:6} {}\n", route.method.as_str(), route.template)
        })
        .collect();
    told.sort();
    expect_test::expect_file!["callers.txt"].assert_eq(&told.concat());
}

fn narrowed(permissions: PermissionSet) -> Narrowing {
    let permissions = permissions.iter().map(|permission| permission.as_str().to_owned()).collect();
    Narrowing { permissions, ..Narrowing::default() }
}

/// Whether a caller that is known was kept out for what it may do.
fn is_kept_out(answered: &Answered) -> bool {
    matches!(answered.status, 401 | 403)
}

#[tokio::test]
async fn each_permission_opens_its_routes_and_every_other_one_does_not() {
    let world = World::new().await;
    let mut routes: Vec<Route> =
        table().into_iter().filter(|route| route.access.permission().is_some()).collect();
    routes.sort_by_key(harm);
    let app = || TokenOwner::App(world.apps[0].id.parse().expect("an id"));
    let all = PermissionSet::all();
    let mut tokens = Vec::new();
    for permission in Permission::ALL {
        let only = PermissionSet::of([*permission]);
        let mut row = Vec::new();
        for (owner, set) in [
            (app(), only),
            (app(), all.beyond(only)),
            (TokenOwner::Staff(None), only),
            (TokenOwner::Staff(None), all.beyond(only)),
        ] {
            row.push(made(&world.store, owner, Some(narrowed(set)), None).await.1);
        }
        tokens.push((*permission, row));
    }
    let mut asked = 0;
    for route in &routes {
        let path = world.path(route, Whose::Own).expect("a path");
        let wanted = route.access.permission().expect("they have one");
        let is_app = route.access.is_of_apps();
        for (permission, row) in &tokens {
            let [app_only, app_others, staff_only, staff_others] = row.as_slice() else { panic!("four") };
            let (mine, others, foreign) = if is_app {
                (app_only, app_others, staff_only)
            } else {
                (staff_only, staff_others, app_only)
            };
            if *permission != wanted {
                // One of many permissions is asked at each route: all of them are asked at one route.
                if (asked % 7) == 0 {
                    let answered = world.ask_with(route, &path, Some(mine)).await;
                    assert_eq!(answered.status, 403, "{path} with {permission}: {answered:?}");
                }
                asked += 1;
                continue;
            }
            let refused = world.ask_with(route, &path, Some(others)).await;
            assert_eq!(refused.status, 403, "{} without {wanted}: {refused:?}", name(route));
            let problem = refused.problem();
            assert_eq!(problem["type"], "urn:tidings:problem:permission-required", "{problem}");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(wanted.as_str()), "{problem}");
            let refused = world.ask_with(route, &path, Some(foreign)).await;
            assert_eq!(refused.status, 401, "{} by one of the other door: {refused:?}", name(route));
        }
    }
    for route in &routes {
        let is_endless = route.template.ends_with("/events") || route.template.ends_with("/follow");
        let wanted = route.access.permission().expect("they have one");
        // What erases the app comes last and ends its tokens.
        if is_endless || harm(route) == 2 {
            continue;
        }
        let path = world.path(route, Whose::Own).expect("a path");
        let (_, row) = tokens.iter().find(|(permission, _)| *permission == wanted).expect("a row");
        let mine = if route.access.is_of_apps() { &row[0] } else { &row[2] };
        let answered = world.ask_with(route, &path, Some(mine)).await;
        // A token with tokens:create alone asks for a whole one here, which is more than it has.
        let is_made = name(route).contains("POST") && route.template.ends_with("/tokens");
        assert!(is_made || !is_kept_out(&answered), "{} with {wanted}: {answered:?}", name(route));
    }
}

/// A house with a role of its own.
async fn house() -> House {
    House::with(|settings| {
        let role = |includes: &[&str], permissions: &[&str]| RoleSettings {
            includes: includes.iter().map(|word| (*word).to_owned()).collect(),
            permissions: permissions.iter().map(|word| (*word).to_owned()).collect(),
        };
        let granting = ["tokens:create", "staff-tokens:create", "breakers:set"];
        settings.roles.insert("support".to_owned(), role(&["viewer"], &["dead-letters:redrive"]));
        settings.roles.insert("granting".to_owned(), role(&[], &granting));
    })
    .await
}

async fn make(house: &House, path: &str, by: &str, body: Value) -> Answered {
    house.call("POST", path, Some(by), Some(&body)).await
}

fn token_of(made: &Answered) -> String {
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn refusals_of_the_staff_are_counted_for_each_caller_and_written_after_a_minute() {
    let house = house().await;
    let viewer = json!({ "name": "viewer", "role": "viewer" });
    let made = make(&house, "/api/admin/tokens", ADMIN, viewer.clone()).await;
    let (id, viewer) = (made.json()["token_id"].clone(), token_of(&made));
    let rotate = async |token: &str| house.call("POST", "/api/admin/keys/rotate", Some(token), None).await;
    for _ in 0..30 {
        assert_eq!(rotate(&viewer).await.status, 403);
    }
    assert_eq!(rotate("nobody").await.status, 401);
    let rows = async || -> Vec<(String, String)> {
        let rows = house.sqlite().audit_chain(0, 1_000).await.expect("read");
        let refused = rows.into_iter().filter(|row| row.entry.action == "sign_in.refused");
        refused.map(|row| (row.entry.actor, row.entry.target)).collect()
    };
    let until = Instant::now() + PATIENCE;
    while rows().await.len() < 11 {
        assert!(Instant::now() < until, "the first ones are written");
        sleep(Duration::from_millis(5)).await;
    }
    tokio::time::pause();
    tokio::time::advance(WRITTEN_EVERY).await;
    tokio::time::resume();
    let (id, until) = (id.as_str().expect("an id").to_owned(), Instant::now() + PATIENCE);
    while rows().await.last() != Some(&(id.clone(), "times:20".to_owned())) {
        assert!(Instant::now() < until, "{:?}", rows().await);
        sleep(Duration::from_millis(5)).await;
    }
    assert!(rows().await.contains(&("anyone".to_owned(), String::new())));
}

#[tokio::test]
async fn wildcards_of_an_apps_token_mean_what_an_app_may() {
    let house = house().await;
    let app = house.app().await;
    let wish = json!({ "name": "all", "permissions": ["*:*"] });
    let all = token_of(&make(&house, "/api/app/tokens", &app, wish).await);
    let shown = async |token: &str| house.call("GET", "/api/session", Some(token), None).await.json();
    let (of_all, of_app) = (shown(&all).await, shown(&app).await);
    assert_eq!(of_all["permissions"], of_app["permissions"]);
    let permissions = of_all["permissions"].as_array().expect("a list");
    assert!(permissions.len() > 20 && !permissions.contains(&json!("keys:rotate")), "{of_all}");
}

#[tokio::test]
async fn a_role_of_the_settings_opens_what_it_says_and_grants_no_more() {
    let house = house().await;
    let tokens = "/api/admin/tokens";
    let made = make(&house, tokens, ADMIN, json!({ "name": "s", "role": "support" })).await;
    assert_eq!((&made.json()["role"], &made.json()["permissions"]), (&json!("support"), &Value::Null));
    let support = token_of(&made);
    let call =
        async |method: &str, path: &str, token: &str| house.call(method, path, Some(token), None).await;
    assert_eq!(call("GET", "/api/admin/overview", &support).await.status, 200);
    let shown = call("GET", "/api/session", &support).await.json();
    assert_eq!((&shown["kind"], &shown["role"]), (&json!("staff"), &json!("viewer")), "{shown}");
    let app = house.app().await;
    let id = house.app_named("an app").await.id;
    let redrive = format!("/api/admin/apps/{id}/dead-letters/redrive");
    assert!(!is_kept_out(&house.call("POST", &redrive, Some(&support), Some(&json!({}))).await));
    let refused = call("POST", &format!("/api/admin/breakers/endpoint/{id}/reset"), &support).await;
    assert!(refused.status == 403 && refused.body.contains("breakers:set"), "{refused:?}");
    let granting = token_of(&make(&house, tokens, ADMIN, json!({ "name": "g", "role": "granting" })).await);
    let of_app = format!("/api/admin/apps/{id}/tokens");
    for (path, body) in [
        (tokens, json!({ "name": "x", "role": "admin" })),
        (tokens, json!({ "name": "x", "role": "viewer" })),
        (tokens, json!({ "name": "x", "permissions": ["*:*"] })),
        (&of_app, json!({ "name": "x" })),
        (&of_app, json!({ "name": "x", "permissions": ["changes:pull"] })),
    ] {
        let refused = make(&house, path, &granting, body.clone()).await;
        assert_eq!(refused.status, 403, "{body} {refused:?}");
    }
    for (path, body) in [
        (tokens, json!({ "name": "x", "role": "granting" })),
        (tokens, json!({ "name": "x", "permissions": ["breakers:set"] })),
        (&of_app, json!({ "name": "x", "permissions": ["tokens:create"] })),
    ] {
        assert_eq!(make(&house, path, &granting, body.clone()).await.status, 201, "{body}");
    }
    for body in [
        json!({ "name": "x", "role": "app" }),
        json!({ "name": "x", "role": "nobody" }),
        json!({ "name": "x", "role": "viewer", "permissions": ["*:read"] }),
        json!({ "name": "x" }),
    ] {
        assert_eq!(make(&house, tokens, ADMIN, body.clone()).await.status, 422, "{body}");
    }
    assert_eq!(call("GET", "/api/app", &app).await.status, 200);
}

/// The table of the guide: each permission with its holders, what it opens, and its routes.
fn permissions_of_the_guide() -> String {
    let mut page = String::from("| permission | held by | opens |\n|---|---|---|\n");
    for permission in Permission::ALL {
        let staff = match permission.least_role() {
            Some(role) => format!("{role}"),
            None => String::new(),
        };
        let app = if permission.is_of_apps() { "app" } else { "" };
        let holders: Vec<&str> = [app, &staff].into_iter().filter(|word| !word.is_empty()).collect();
        writeln!(page, "| `{permission}` | {} | {} |", holders.join(", "), permission.opens())
            .expect("a String takes all");
    }
    page + "\n"
}

#[test]
fn the_guide_lists_every_permission() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions.md");
    let page = std::fs::read_to_string(path).expect("the guide");
    let (before, rest) = page.split_once("## Every permission\n\n").expect("a chapter of permissions");
    let (_, after) = rest.split_once("## Roles of your own").expect("a chapter behind it");
    let table = permissions_of_the_guide();
    let expected = format!("{before}## Every permission\n\n{table}## Roles of your own{after}");
    expect_test::expect_file!["../../../docs/permissions.md"].assert_eq(&expected);
}
