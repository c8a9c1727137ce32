//! Repositories with a sink of their own and with names, over the real store.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tidings_actors::ports::AppStore;
use tidings_entity::id::{AppId, SinkId};

use super::{ADMIN, House, sqlite};
use crate::store::SqlStore;

const REPOSITORIES: &str = "/api/repositories";

struct World {
    house: House,
    store: Arc<SqlStore>,
    token: String,
    _folder: tempfile::TempDir,
}

impl World {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = sqlite::store(folder.path()).await;
        let house = House::real(store.clone(), |_| {}).await;
        let token = house.app().await;
        Self { house, store, token, _folder: folder }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answered = self.house.call(method.as_str(), path, Some(&self.token), body).await;
        let json = if answered.body.is_empty() { Value::Null } else { answered.json() };
        (answered.status, json)
    }

    async fn add(&self, more: &Value) -> (u16, Value) {
        let mut body = json!({ "github_url": "https://github.com/o/r" });
        let fields = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        self.call(Method::POST, REPOSITORIES, Some(&body)).await
    }
}

#[tokio::test]
async fn one_repository_is_watched_twice_with_sinks_of_their_own() {
    let world = World::open().await;
    let (status, plain) = world.add(&json!({})).await;
    assert_eq!(status, 201);
    assert!(
        plain.get("sink").is_none() && plain.get("watch_name").is_none(),
        "old clients see nothing new: {plain}"
    );

    let wish = json!({ "watch_name": "deploy", "include": ["deploy/**"], "sink": {
        "kind": "endpoint", "url": "https://one.example/in", "headers": { "X-Key": "planted" },
        "format": "cloudevents", "order": "phased", "max_in_flight": 4 } });
    let (status, named) = world.add(&wish).await;
    assert_eq!(status, 201, "{named}");
    assert_ne!(named["repository_id"], plain["repository_id"]);
    let secret = named["sink"]["signing_secret"].as_str().expect("shown once").to_owned();
    assert!(secret.starts_with("whsec_"));
    let id = named["repository_id"].as_str().expect("an id").to_owned();
    let path = format!("{REPOSITORIES}/{id}");
    let (_, shown) = world.call(Method::GET, &path, None).await;
    let mut expected = named.clone();
    expected["sink"].as_object_mut().expect("a sink").remove("signing_secret");
    assert_eq!(
        (&shown["watch_name"], &shown["sink"]),
        (&json!("deploy"), &expected["sink"]),
        "and never again"
    );
    assert!(!shown.to_string().contains("planted"), "{shown}");
    assert_eq!(shown["sink"]["url"], "https://one.example/in");
    let seen =
        ["kind", "format", "order", "max_in_flight", "has_access"].map(|name| shown["sink"][name].clone());
    assert_eq!(seen, [json!("endpoint"), json!("cloudevents"), json!("phased"), json!(4), json!(true)]);
    assert_eq!(shown["sink"]["endpoint"]["state"], "closed");

    let (status, again) = world.add(&wish).await;
    assert_eq!((status, &again["repository_id"]), (201, &json!(id)), "the same name is the same watch");
    assert!(again["sink"].get("signing_secret").is_none(), "its sink keeps its key");
    assert_eq!(again["sink"]["sink_id"], named["sink"]["sink_id"]);
    let (_, list) = world.call(Method::GET, REPOSITORIES, None).await;
    assert_eq!(list["items"].as_array().expect("a list").len(), 2);

    let rename = |name: Value| json!({ "watch_name": name });
    for (name, status) in [(json!(""), 409), (json!("De"), 422), (json!(7), 422), (json!("docs"), 200)] {
        let answered = world.call(Method::PATCH, &path, Some(&rename(name.clone()))).await;
        assert_eq!(answered.0, status, "{name} {}", answered.1);
    }
    let plain = format!("{REPOSITORIES}/{}", plain["repository_id"].as_str().expect("an id"));
    let (status, taken) = world.call(Method::PATCH, &plain, Some(&rename(json!("docs")))).await;
    assert_eq!((status, taken["detail"].to_string().contains(&id)), (409, true), "{taken}");
    let (status, free) = world.call(Method::PATCH, &plain, Some(&rename(json!("deploy")))).await;
    assert_eq!((status, &free["watch_name"]), (200, &json!("deploy")), "{free}");
    let (status, unnamed) = world.call(Method::PATCH, &path, Some(&rename(json!("")))).await;
    assert_eq!((status, unnamed.get("watch_name")), (200, None), "{unnamed}");
    let (_, same) = world.call(Method::PATCH, &path, Some(&rename(Value::Null))).await;
    assert_eq!(same["repository_id"], json!(id), "null changes nothing");
}

#[tokio::test]
async fn the_sink_of_a_repository_is_changed_part_by_part() {
    let world = World::open().await;
    let wish = json!({ "sink": { "kind": "endpoint", "url": "https://one.example/in",
                                 "headers": { "x-key": "planted" } } });
    let (_, added) = world.add(&wish).await;
    let path = format!("{REPOSITORIES}/{}", added["repository_id"].as_str().expect("an id"));
    let patch = async |sink: Value| {
        let (status, shown) = world.call(Method::PATCH, &path, Some(&json!({ "sink": sink }))).await;
        assert_eq!(status, 200, "{shown}");
        shown
    };
    let shown = patch(json!({ "order": "phased" })).await;
    assert_eq!((&shown["sink"]["order"], &shown["sink"]["has_access"]), (&json!("phased"), &json!(true)));
    let shown = patch(json!({ "url": "https://two.example/in" })).await;
    assert_eq!(shown["sink"]["has_access"], false, "what goes with requests follows to no other origin");
    assert_eq!(shown["sink"]["order"], "phased");

    let pending = format!("{path}/pending");
    assert_eq!(world.call(Method::GET, &pending, None).await.0, 409, "its changes are sent");
    let shown = patch(json!({ "kind": "pull" })).await;
    for name in ["url", "endpoint", "order", "max_in_flight", "batch"] {
        assert!(shown["sink"].get(name).is_none(), "nothing is sent, so {name} means nothing: {shown}");
    }
    assert_eq!(world.call(Method::GET, &pending, None).await.0, 204, "they are claimed now");
    assert_eq!(world.call(Method::POST, &format!("{path}/test"), None).await.0, 409, "nothing is sent there");
    let shown = patch(Value::Null).await;
    assert!(shown.get("sink").is_none());
    assert_eq!(world.call(Method::GET, &pending, None).await.0, 409, "the app has an endpoint");
}

#[tokio::test]
async fn what_is_wrong_with_a_sink_is_said_at_its_field() {
    let world = World::open().await;
    let endpoint = |more: Value| {
        let mut sink = json!({ "kind": "endpoint", "url": "https://one.example" });
        sink.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({ "sink": sink })
    };
    for (body, pointer) in [
        (json!({ "sink": {} }), "/sink"),
        (json!({ "sink": { "kind": "print" } }), "/sink/kind"),
        (json!({ "sink": 7 }), "/sink"),
        (json!({ "sink": { "kind": "endpoint" } }), "/sink/url"),
        (json!({ "sink": { "kind": "endpoint", "url": "nats://broker.example/a" } }), "/sink/url"),
        (json!({ "sink": { "kind": "stream", "url": "https://one.example" } }), "/sink/url"),
        (json!({ "sink": { "kind": "pull", "url": "https://one.example" } }), "/sink/url"),
        (json!({ "sink": { "kind": "pull", "order": "phased" } }), "/sink/order"),
        (json!({ "sink": { "kind": "pull", "batch": {} } }), "/sink/batch"),
        (json!({ "sink": { "kind": "pull", "retry_window_ms": 60000 } }), "/sink/retry_window_ms"),
        (endpoint(json!({ "window": 3 })), "/sink/window"),
        (endpoint(json!({ "command": "index" })), "/sink/command"),
        (endpoint(json!({ "rate": 5 })), "/sink/rate"),
        (endpoint(json!({ "max_in_flight": 0 })), "/sink/max_in_flight"),
        (endpoint(json!({ "headers": { "content-type": "x" } })), "/sink/headers/content-type"),
        (endpoint(json!({ "auth": 7 })), "/sink/auth"),
        (endpoint(json!({ "auth": { "bearer": { "token": "t", "tokn": "t" } } })), "/sink/auth/bearer/tokn"),
        (endpoint(json!({ "auth": { "basic": { "username": "u" } } })), "/sink/auth/basic/password"),
        (endpoint(json!({ "tls": { "ca_file": "x" } })), "/sink/tls/ca_file"),
        (endpoint(json!({ "batch": { "cnt": 7 } })), "/sink/batch"),
        (endpoint(json!({ "nonsense": 7 })), "/sink/nonsense"),
        (json!({ "watch_name": "Deploy" }), "/watch_name"),
        (json!({ "watch_name": "a".repeat(41) }), "/watch_name"),
    ] {
        let (status, problem) = world.add(&body).await;
        let faults = problem["errors"].as_array().expect("faults");
        assert_eq!(status, 422, "{body} {problem}");
        assert!(faults.iter().all(|fault| fault["pointer"] == pointer), "{body} {problem}");
        let said = problem.to_string();
        for word in ["struct ", "variant", "invalid type", "expected ", "u32", " at line "] {
            assert!(!said.contains(word), "{word:?} is a word of the decoder: {body} {said}");
        }
    }
    let (_, list) = world.call(Method::GET, REPOSITORIES, None).await;
    assert_eq!(list["items"], json!([]), "nothing was written");
}

#[tokio::test]
async fn a_sink_shows_each_setting_that_was_chosen_for_it() {
    let world = World::open().await;
    let chosen = json!({ "retry_policy": "linear", "retry_base_ms": 2000, "retry_cap_ms": 60000,
        "retry_window_ms": 3_600_000, "synced": true, "resync": true, "sync_recovered": true });
    let mut sink = json!({ "url": "https://one.example/in" });
    let (_, plain) = world.add(&json!({ "watch_name": "plain", "sink": sink })).await;
    sink.as_object_mut().expect("an object").extend(chosen.as_object().expect("an object").clone());
    let (status, added) = world.add(&json!({ "watch_name": "chosen", "sink": sink })).await;
    assert_eq!(status, 201, "{added}");
    for (name, value) in chosen.as_object().expect("an object") {
        assert_eq!(&added["sink"][name], value, "{name}");
        assert!(plain["sink"].get(name).is_none(), "{name} has its default");
    }
    let pulled = json!({ "watch_name": "pulled", "sink": { "kind": "pull", "synced": true } });
    assert_eq!(world.add(&pulled).await.1["sink"]["synced"], true, "pull hands notices out as well");
}

#[tokio::test]
async fn a_sink_that_answered_410_is_told_and_enabled_when_its_watch_is_resumed() {
    let world = World::open().await;
    let (_, added) = world.add(&json!({ "sink": { "url": "https://one.example/in" } })).await;
    let path = added_path(&added);
    let seen = path.clone();
    for (method, path, body) in [
        (Method::POST, format!("{path}/resume"), None),
        (Method::PATCH, path.clone(), Some(json!({ "state": "active" }))),
    ] {
        world.store.tamper("update sink set disabled = 'the endpoint answered 410 Gone'").await;
        let shown = world.call(Method::GET, &seen, None).await.1;
        assert_eq!(shown["effective_state"], "sink_disabled", "{shown}");
        let reason = shown["effective_reason"].as_str().expect("a reason");
        assert!(reason.contains("answered 410") && reason.contains("repository resume"), "{reason}");
        let (status, shown) = world.call(method, &path, body.as_ref()).await;
        assert_eq!(status, 200, "{shown}");
        assert!(shown["sink"].get("disabled").is_none(), "{shown}");
        assert_ne!(shown["effective_state"], "sink_disabled");
    }
}

fn added_path(added: &Value) -> String {
    format!("{REPOSITORIES}/{}", added["repository_id"].as_str().expect("an id"))
}

#[tokio::test]
async fn the_key_of_a_sink_is_rotated_and_the_previous_one_signs_beside_it() {
    let world = World::open().await;
    let (_, added) = world.add(&json!({ "sink": { "url": "https://one.example/in" } })).await;
    let path = added_path(&added);
    let sink: SinkId = added["sink"]["sink_id"].as_str().expect("an id").parse().expect("an id");
    let (_, own) = world.call(Method::GET, "/api/app", None).await;
    let app: AppId = own["app_id"].as_str().expect("an id").parse().expect("an id");
    let keys = async || {
        let sink = world.store.sink(&app, &sink).await.expect("read").expect("a sink");
        (sink.signing_key.expect("a key"), sink.former_key)
    };
    let (before, _) = keys().await;
    let (status, shown) =
        world.call(Method::PATCH, &path, Some(&json!({ "rotate_signing_key": true }))).await;
    assert_eq!(status, 200, "{shown}");
    let secret = shown["sink"]["signing_secret"].as_str().expect("shown once");
    assert_ne!(secret, added["sink"]["signing_secret"].as_str().expect("shown once"));
    let (after, former) = keys().await;
    assert_ne!(after.expose(), before.expose());
    assert_eq!(former.expect("it signs for a day").expose(), before.expose());
    assert_eq!(crate::secrets::shown_signing_secret(&after).expose(), secret);
    let (_, shown) = world.call(Method::GET, &path, None).await;
    assert!(shown["sink"].get("signing_secret").is_none());

    let wish = json!({ "name": "operator", "role": "operator" });
    let operator = world.house.call("POST", "/api/admin/tokens", Some(ADMIN), Some(&wish)).await.json();
    let operator = operator["token"].as_str().expect("a token");
    let of_staff = path.replacen("/api", &format!("/api/admin/apps/{app}"), 1);
    for (token, status) in [(operator, 403), (ADMIN, 200)] {
        let body = json!({ "rotate_signing_key": true });
        let answered = world.house.call("PATCH", &of_staff, Some(token), Some(&body)).await;
        assert_eq!(answered.status, status, "{}", answered.json());
    }

    let refused = async |body: Value| world.call(Method::PATCH, &path, Some(&body)).await.0;
    assert_eq!(refused(json!({ "overlap_seconds": 5 })).await, 422);
    let pulls = json!({ "rotate_signing_key": true, "sink": { "kind": "pull" } });
    assert_eq!(refused(pulls).await, 422, "a sink that pulls signs nothing");
    assert_eq!(refused(json!({ "rotate_signing_key": true, "sink": null })).await, 422);
}
