//! Who may do what: every route, as the table has it, asked by everybody there is, for what is
//! theirs, somebody else's and nobody's.

use std::{path::Path, sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tidings_actors::{
    model::permission::narrowing::Narrowing,
    ports::{AccessToken, Administration, TokenOwner, TokensOf},
    time::Timestamp,
};
use tidings_entity::{id::TokenId, kind::Role};
use ulid::Ulid;

use super::super::table;
use super::{
    House,
    house::{ADMIN, Answered, PATIENCE},
};
use crate::http::door::route::{Access, Route};
use crate::{
    machine::{MachineClock, MachineRandom},
    secrets::{Keyring, Token},
    settings::{OnboardingMode, Settings},
    store::SqlStore,
};

/// A caller of the API: a name for failures, and the token that is sent.
#[derive(Clone, Debug)]
struct Caller {
    name: &'static str,
    token: Option<String>,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Nobody,
    App,
    Staff(Role),
    /// Known, and of no role.
    Roleless,
}

/// A front door over the real store, with two apps that have a watch and two tokens each.
pub(super) struct World {
    pub(super) house: House,
    pub(super) store: Arc<SqlStore>,
    pub(super) apps: Vec<AppOfWorld>,
    callers: Vec<Caller>,
    staff_token: String,
    _folder: tempfile::TempDir,
}

pub(super) struct AppOfWorld {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) watch: String,
    pub(super) spare: String,
}

/// Whose thing is asked for.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    Own,
    Foreign,
    Nobodys,
}

async fn store(folder: &Path) -> Arc<SqlStore> {
    let keyring = Keyring::create(&folder.join("keyring"), &MachineRandom).expect("a keyring");
    let settings = Settings { data_dir: folder.to_owned(), ..Settings::default() };
    let (clock, random) = (Arc::new(MachineClock), Arc::new(MachineRandom));
    let opened = SqlStore::open(&settings.database_url(), Arc::new(keyring), clock, random).await;
    Arc::new(opened.expect("opened"))
}

async fn row(store: &SqlStore, owner: TokenOwner, expires_at: Option<i64>) -> (TokenId, String) {
    made(store, owner, None, expires_at).await
}

/// A token as the store keeps it, with its text.
pub(super) async fn made(
    store: &SqlStore,
    owner: TokenOwner,
    narrowing: Option<Narrowing>,
    expires_at: Option<i64>,
) -> (TokenId, String) {
    let made = Token::generate("tdg", &MachineRandom);
    let now = tidings_actors::ports::Clock::now(&MachineClock);
    let id = TokenId::new(tidings_actors::ports::Random::ulid(&MachineRandom, now));
    let token = AccessToken {
        id: id.clone(),
        owner,
        narrowing,
        name: "of the test".into(),
        public_id: made.public_id().to_owned(),
        hash: made.hash(),
        expires_at: expires_at.map(Timestamp),
        last_used_at: None,
        revoked_at: None,
        created_at: now,
    };
    store.create_token(&token).await.expect("made");
    (id, made.text().expose().to_owned())
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path()).await;
        let issuer = crate::identity::issuer::tests::serve().await;
        let house = House::real(store.clone(), |settings| {
            settings.onboarding.mode = OnboardingMode::Admin;
            settings.identity = issuer.settings.clone();
            settings.egress = issuer.egress.clone();
            // Everybody here asks from one address, as fast as it goes.
            settings.server.address_rate = "1000000/s".parse().expect("a rate");
            settings.server.token_rate = "1000000/s".parse().expect("a rate");
        })
        .await;
        let mut apps = Vec::new();
        for name in ["one app", "other app"] {
            let body = json!({ "app_name": name, "email": "a@b.c", "base_url": "https://app.example" });
            let app = house.call("POST", "/api/apps/onboard", Some(ADMIN), Some(&body)).await.json();
            let token = app["token"].as_str().expect("a token").to_owned();
            let watch = house.repository(&token, "https://github.com/o/r").await;
            let wish = json!({ "name": "spare" });
            let spare = house.call("POST", "/api/app/tokens", Some(&token), Some(&wish)).await.json();
            apps.push(AppOfWorld {
                id: app["app_id"].as_str().expect("an id").to_owned(),
                spare: spare["token_id"].as_str().expect("an id").to_owned(),
                token,
                watch,
            });
        }
        let mut callers = Vec::new();
        let mut know = |name, token: Option<String>, is| callers.push(Caller { name, token, is });
        let stranger = Token::generate("tdg", &MachineRandom).text().expose().to_owned();
        know("none", None, Is::Nobody);
        know("garbage", Some("garbage".into()), Is::Nobody);
        know("wrong token", Some(stranger), Is::Nobody);
        let owner = |app: &AppOfWorld| TokenOwner::App(app.id.parse().expect("an id"));
        for (name, owner) in [("app", owner(&apps[0])), ("admin", TokenOwner::Staff(Some(Role::Admin)))] {
            let (_, expired) = row(&store, owner.clone(), Some(1)).await;
            let (id, revoked) = row(&store, owner.clone(), None).await;
            store.revoke_token(&owner.of(), &id, Timestamp(2)).await.expect("revoked");
            know(if name == "app" { "expired app" } else { "expired admin" }, Some(expired), Is::Nobody);
            know(if name == "app" { "revoked app" } else { "revoked admin" }, Some(revoked), Is::Nobody);
        }
        know("app", Some(apps[0].token.clone()), Is::App);
        let (_, second) = row(&store, owner(&apps[0]), None).await;
        know("second token of the app", Some(second), Is::App);
        know("other app", Some(apps[1].token.clone()), Is::App);
        for role in Role::ALL {
            let (_, token) = row(&store, TokenOwner::Staff(Some(*role)), None).await;
            know(role.as_str(), Some(token), Is::Staff(*role));
        }
        let now = tidings_actors::ports::Clock::now(&MachineClock);
        for (name, role) in [
            ("JWT of a viewer", Role::Viewer),
            ("JWT of an operator", Role::Operator),
            ("JWT of an admin", Role::Admin),
        ] {
            let word = format!("tidings-{role}");
            know(name, Some(issuer.token(now, &["other", &word])), Is::Staff(role));
        }
        know("JWT without a role", Some(issuer.token(now, &["other"])), Is::Roleless);
        let over = issuer.token(Timestamp(now.0 - 3_600_000), &["tidings-admin"]);
        know("JWT that is over", Some(over), Is::Nobody);
        know("the server's own token", Some(ADMIN.to_owned()), Is::Staff(Role::Admin));
        let (staff_token, _) = row(&store, TokenOwner::Staff(Some(Role::Viewer)), None).await;
        Self { house, store, apps, callers, staff_token: staff_token.to_string(), _folder: folder }
    }

    /// The path of a route, for something of this kind of owner; `None` where there is no such thing.
    pub(super) fn path(&self, route: &Route, whose: Whose) -> Option<String> {
        let of = match whose {
            Whose::Own | Whose::Nobodys => &self.apps[0],
            Whose::Foreign => &self.apps[1],
        };
        let missing = |prefix: &str| format!("{prefix}{}", Ulid::from_parts(1, 1));
        let is_staffs = route.template.starts_with("/api/admin/") && !route.template.contains("{app_id}");
        let mut before = "";
        let mut parts = Vec::new();
        for part in route.template.split('/') {
            let id = match (part, before, whose) {
                ("{app_id}", ..) => self.apps[0].id.clone(),
                ("{kind}", ..) => "endpoint".to_owned(),
                ("{command}", ..) => "nothing".to_owned(),
                ("{blob}", ..) => "a".repeat(40),
                ("{file}", ..) => "index.html".to_owned(),
                ("{name}", ..) => "nobody".to_owned(),
                ("{page}", ..) => "apps".to_owned(),
                ("{version}", ..) => "0".to_owned(),
                ("{folder}", ..) => "pages".to_owned(),
                ("{id}", "repositories", Whose::Nobodys) => missing("repo_"),
                ("{id}", "repositories", _) if !is_staffs => of.watch.clone(),
                ("{id}", "tokens", Whose::Nobodys) => missing("tok_"),
                ("{id}", "tokens", _) if !is_staffs => of.spare.clone(),
                ("{id}", "tokens", Whose::Own) => self.staff_token.clone(),
                ("{id}", "apps", Whose::Own) => self.apps[1].id.clone(),
                ("{id}", "apps", Whose::Nobodys) => missing("app_"),
                ("{id}", _, Whose::Foreign) => return None,
                ("{id}", "{kind}", Whose::Own) => self.apps[0].id.clone(),
                ("{id}", ..) => missing(match before {
                    "dead-letters" => "dead_",
                    "redrives" => "rdv_",
                    "receipts" => "rct_",
                    "hooks" => "hook_",
                    "tasks" => "tsk_",
                    "repositories" => "rep_",
                    "{kind}" => "app_",
                    _ => "dlv_",
                }),
                (literal, ..) => {
                    assert!(!literal.starts_with('{'), "{literal} is not known to this test");
                    literal.to_owned()
                }
            };
            before = part;
            parts.push(id);
        }
        Some(parts.join("/"))
    }

    /// The token of a caller of the staff who may only look.
    pub(super) fn viewer(&self) -> &str {
        let viewer = self.callers.iter().find(|caller| caller.name == "viewer").expect("one");
        viewer.token.as_deref().expect("a token")
    }

    async fn ask(&self, route: &Route, path: &str, caller: &Caller) -> Answered {
        self.ask_with(route, path, caller.token.as_deref()).await
    }

    /// The answer of a route to a token.
    pub(super) async fn ask_with(&self, route: &Route, path: &str, token: Option<&str>) -> Answered {
        let body = [Method::POST, Method::PUT, Method::PATCH].contains(&route.method).then(|| json!({}));
        self.house.call(route.method.as_str(), path, token, body.as_ref()).await
    }
}

/// What the table says of a caller: the refusal, or nothing.
fn refusal(route: &Route, caller: &Caller) -> Option<u16> {
    match (route.access, route.access.role(), caller.is) {
        (Access::Public | Access::Hook(_) | Access::AppHook(_), ..) => None,
        (Access::App(_) | Access::Holder(_), _, Is::App) => None,
        (Access::Anybody, _, Is::App | Is::Staff(_)) => None,
        (_, Some(least), Is::Staff(role)) if role >= least => None,
        (_, Some(_), Is::Staff(_) | Is::Roleless) => Some(403),
        _ => Some(401),
    }
}

/// An answer without what differs from request to request.
fn alike(answered: &Answered) -> (u16, Value) {
    let mut body = answered.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    (answered.status, body)
}

/// A call that is let in and changes much comes last.
pub(super) fn harm(route: &Route) -> u8 {
    match (route.method.as_str(), route.template.as_str()) {
        ("DELETE", "/api/app" | "/api/admin/apps/{id}") => 2,
        ("DELETE", _) => 1,
        _ => 0,
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    let world = World::new().await;
    let mut routes = table();
    routes.sort_by_key(harm);
    let (mut refused, mut admitted) = (0, 0);
    // Those who are refused first: nothing of what they ask for may happen.
    for route in &routes {
        let path = world.path(route, Whose::Own).expect("a path");
        for caller in &world.callers {
            let Some(status) = refusal(route, caller) else { continue };
            let answered = world.ask(route, &path, caller).await;
            assert_eq!(answered.status, status, "{} {path} by {}: {answered:?}", route.method, caller.name);
            answered.problem();
            refused += 1;
        }
    }
    for app in &world.apps {
        let shown = world.house.call("GET", "/api/app", Some(&app.token), None).await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let path = format!("/api/repositories/{}", app.watch);
        let shown = world.house.call("GET", &path, Some(&app.token), None).await.json();
        assert_eq!(shown["state"], "active", "nobody who was refused changed anything");
    }
    for route in &routes {
        // A tail never ends.
        if route.template.ends_with("/events") || route.template.ends_with("/follow") {
            continue;
        }
        let path = world.path(route, Whose::Own).expect("a path");
        for caller in &world.callers {
            let other_app = caller.name == "other app";
            if refusal(route, caller).is_some() || route.access.is_of_hooks() || other_app {
                continue;
            }
            let answered = world.ask(route, &path, caller).await;
            let gone = harm(route) == 2 && admitted > 0;
            assert!(
                !matches!(answered.status, 401 | 403) || gone,
                "{} {path} by {}: {answered:?}",
                route.method,
                caller.name
            );
            admitted += 1;
        }
    }
    assert!(refused > 500 && admitted > 100, "{refused} were refused, {admitted} let in");
}

#[tokio::test]
async fn what_is_somebody_elses_looks_like_what_is_not_there() {
    let world = World::new().await;
    let (app, admin) = (&world.callers[7], world.callers.last().expect("callers"));
    assert_eq!((app.name, app.is), ("app", Is::App));
    let mut compared = 0;
    for route in table() {
        let Some(foreign) = world.path(&route, Whose::Foreign).filter(|_| route.template.contains("{id}"))
        else {
            continue;
        };
        let by = match route.access {
            Access::App(_) | Access::Holder(_) => app,
            _ if route.template.contains("{app_id}") => admin,
            _ => continue,
        };
        let missing = world.path(&route, Whose::Nobodys).expect("a path");
        let paths = [&foreign, &missing].map(|path| path.split('/').map(str::to_owned).collect::<Vec<_>>());
        let (foreign, missing) =
            (world.ask(&route, &foreign, by).await, world.ask(&route, &missing, by).await);
        // Each answer may repeat the id that its own request has.
        let without = |answer: &Answered, path: &[String]| {
            let (ids, (status, body)) = (path.iter().filter(|part| part.contains('_')), alike(answer));
            (status, ids.fold(body.to_string(), |text, id| text.replace(id.as_str(), "ID")))
        };
        let (one, other) = (without(&foreign, &paths[0]), without(&missing, &paths[1]));
        assert_eq!(one, other, "{} {}", route.method, route.template);
        assert!(foreign.status >= 400, "{foreign:?}");
        compared += 1;
    }
    assert!(compared >= 20, "{compared} routes name something of an app");
    let other = &world.apps[1];
    let path = format!("/api/repositories/{}", other.watch);
    let shown = world.house.call("GET", &path, Some(&other.token), None).await;
    assert_eq!((shown.status, &shown.json()["state"]), (200, &json!("active")), "and nothing happened to it");
}

#[tokio::test]
async fn a_token_is_shown_once_used_beside_others_and_revoked() {
    let world = World::new().await;
    let app = &world.apps[0];
    let call = async |method: &str, path: &str, token: &str, body: Option<Value>| {
        world.house.call(method, path, Some(token), body.as_ref()).await
    };
    for (body, pointer) in [
        (json!({}), "/name"),
        (json!({ "name": "" }), "/name"),
        (json!({ "name": "x", "expires_at": "yesterday" }), "/expires_at"),
        (json!({ "name": "x", "expires_at": "2020-01-01T00:00:00Z" }), "/expires_at"),
        (json!({ "name": "x", "role": "admin" }), "/role"),
    ] {
        let answered = call("POST", "/api/app/tokens", &app.token, Some(body)).await;
        assert_eq!((answered.status, &answered.json()["errors"][0]["pointer"]), (422, &json!(pointer)));
    }
    let wish = json!({ "name": "the new one", "expires_at": "2030-01-01T00:00:00Z" });
    let made = call("POST", "/api/app/tokens", &app.token, Some(wish)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let (id, token) = (made["token_id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    assert_eq!(call("GET", "/api/app", token, None).await.status, 200);
    let listed = call("GET", "/api/app/tokens", token, None).await;
    assert!(!listed.body.contains(token), "a token is never shown again");
    let names: Vec<Value> =
        listed.json()["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect();
    assert!(names.contains(&json!("onboarding")) && names.contains(&json!("the new one")), "{names:?}");
    // The rotation: the old one goes, and what belongs to the app stays.
    let first = format!("tok_{}", &app.id[4..]);
    let path = format!("/api/app/tokens/{first}");
    assert_eq!(call("DELETE", &path, token, None).await.status, 204);
    assert_eq!(call("DELETE", &path, token, None).await.status, 204, "it is revoked still");
    assert_eq!(call("GET", "/api/app", &app.token, None).await.status, 401);
    assert_eq!(call("GET", &format!("/api/repositories/{}", app.watch), token, None).await.status, 200);
    // The last use comes into the row soon after it.
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let of = TokensOf::App(app.id.parse().expect("an id"));
        let tokens = world.store.tokens(&of, None, 100).await.expect("read");
        let used = tokens.iter().find(|token| token.id.as_str() == id).expect("there").last_used_at;
        if used.is_some() {
            break;
        }
        assert!(std::time::Instant::now() < until, "its use was never noted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0.. {
        let wish = json!({ "name": format!("number {number}") });
        let made = call("POST", "/api/app/tokens", token, Some(wish)).await;
        if made.status == 409 {
            break;
        }
        assert!(made.status == 201 && number < 20, "{made:?}");
    }
}

#[tokio::test]
async fn the_keys_of_one_of_the_staff_are_not_anothers() {
    let world = World::new().await;
    let (_, other) = row(&world.store, TokenOwner::Staff(Some(Role::Admin)), None).await;
    let ask = async |token: &str| {
        let body = json!({ "name": "a viewer", "role": "viewer" }).to_string();
        let request = format!(
            "POST /api/admin/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: the-same\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        world.house.send(request.as_bytes()).await.json()["token"].clone()
    };
    let (first, again, others) = (ask(ADMIN).await, ask(ADMIN).await, ask(&other).await);
    assert!(first.is_string() && first == again, "sent twice, made once");
    assert!(others.is_string() && others != first, "another's key is another request");
}
