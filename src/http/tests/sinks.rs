//! Repositories with a sink of their own and with names, over the real store.

use http::Method;
use serde_json::{Value, json};

use super::{House, sqlite};

const REPOSITORIES: &str = "/api/repositories";

struct World {
    house: House,
    token: String,
    _folder: tempfile::TempDir,
}

impl World {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let house = sqlite::house(folder.path()).await;
        let token = house.app().await;
        Self { house, token, _folder: folder }
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
    assert!(shown["sink"].get("url").is_none() && shown["sink"].get("endpoint").is_none());
    assert_eq!(shown["sink"]["order"], "strict", "another kind begins with its own settings");
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
        (endpoint(json!({ "rate": 5 })), "/sink/rate"),
        (endpoint(json!({ "max_in_flight": 0 })), "/sink/max_in_flight"),
        (endpoint(json!({ "headers": { "content-type": "x" } })), "/sink/headers/content-type"),
        (endpoint(json!({ "auth": 7 })), "/sink/auth"),
        (endpoint(json!({ "nonsense": 7 })), "/sink/nonsense"),
        (json!({ "watch_name": "Deploy" }), "/watch_name"),
        (json!({ "watch_name": "a".repeat(41) }), "/watch_name"),
    ] {
        let (status, problem) = world.add(&body).await;
        let faults = problem["errors"].as_array().expect("faults");
        assert_eq!(status, 422, "{body} {problem}");
        assert!(faults.iter().all(|fault| fault["pointer"] == pointer), "{body} {problem}");
    }
    let (_, list) = world.call(Method::GET, REPOSITORIES, None).await;
    assert_eq!(list["items"], json!([]), "nothing was written");
}
