//! The API as an app uses it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    http::Reply,
    patience::{SOON, eventually_or},
    project::Project,
    server::Server,
    subscriber::{KEY, Subscriber},
};

/// A registered app. Knows no server, so that it survives every restart.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Id of the app, `app_...`.
    pub(crate) id: String,
    /// API token of the app.
    pub(crate) token: String,
    /// The answer to its registration.
    pub(crate) onboarded: Value,
}

impl App {
    /// Registers an app that receives at `subscriber`.
    pub(crate) fn onboard(server: &Server, subscriber: &Subscriber) -> Self {
        Self::onboard_with(server, subscriber, &json!({}))
    }

    /// The same with more fields.
    pub(crate) fn onboard_with(server: &Server, subscriber: &Subscriber, more: &Value) -> Self {
        let mut body = json!({
            "app_name": "stories", "email": "stories@example.org",
            "base_url": subscriber.url(), "client_auth_key": KEY,
        });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.json());
        let onboarded = reply.json();
        let text = |key: &str| onboarded[key].as_str().expect("a text").to_owned();
        let app = Self { id: text("app_id"), token: text("token"), onboarded: onboarded.clone() };
        subscriber.model().expect_app(&app.id);
        app
    }

    /// Registers an app without an endpoint.
    pub(crate) fn onboard_alone(server: &Server) -> Self {
        let body = json!({ "app_name": "stories", "email": "stories@example.org" });
        let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.json());
        let onboarded = reply.json();
        let text = |key: &str| onboarded[key].as_str().expect("a text").to_owned();
        Self { id: text("app_id"), token: text("token"), onboarded: onboarded.clone() }
    }

    /// Declares that the app tells the branches of a watch apart, so that a watch may follow a pattern.
    pub(crate) fn follow_patterns(&self, server: &Server) {
        let body = json!({ "delivery": { "multi_branch": true } });
        let reply = self.ask(server, "PATCH", "/api/app", Some(&body));
        assert_eq!(reply.status, 200, "{}", reply.json());
    }

    /// Asks as this app.
    pub(crate) fn ask(&self, server: &Server, method: &str, path: &str, body: Option<&Value>) -> Reply {
        server.ask(method, path, Some(&self.token), body).expect("an answer")
    }

    /// Watches a repository; its id.
    pub(crate) fn watch(&self, server: &Server, project: &Project) -> String {
        self.watch_with(server, &json!({ "url": project.url() }))
    }

    /// The same with all fields given.
    pub(crate) fn watch_with(&self, server: &Server, body: &Value) -> String {
        let reply = self.ask(server, "POST", "/api/repositories", Some(body));
        assert_eq!(reply.status, 201, "{}", reply.json());
        reply.json()["repository_id"].as_str().expect("an id").to_owned()
    }

    /// The watch as the server shows it.
    pub(crate) fn repository(&self, server: &Server, id: &str) -> Value {
        let reply = self.ask(server, "GET", &format!("/api/repositories/{id}"), None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    /// Asks for a verb of the watch (`scan`, `resync`, `pause`, `resume`).
    pub(crate) fn tell(&self, server: &Server, id: &str, verb: &str) {
        let reply = self.ask(server, "POST", &format!("/api/repositories/{id}/{verb}"), None);
        assert!(matches!(reply.status, 200 | 202), "{verb}: {}", reply.json());
    }

    /// Changes settings of the watch.
    pub(crate) fn patch(&self, server: &Server, id: &str, body: &Value) -> Value {
        let reply = self.ask(server, "PATCH", &format!("/api/repositories/{id}"), Some(body));
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    /// Ends a watch of the app by its id.
    pub(crate) fn unwatch(&self, server: &Server, id: &str) {
        let reply = self.ask(server, "DELETE", &format!("/api/repositories/{id}"), None);
        assert_eq!(reply.status, 204, "{}", reply.json());
    }

    /// Its open dead letters.
    pub(crate) fn dead_letters(&self, server: &Server) -> Vec<Value> {
        let reply = self.ask(server, "GET", "/api/dead-letters?status=open&limit=100", None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        items(&reply.json())
    }

    /// Waits until the app holds this commit and nothing is open.
    pub(crate) fn wait_until_held(&self, server: &Server, id: &str, commit: &str) -> Value {
        let deadline = SOON + Duration::from_secs(60);
        let until = std::time::Instant::now() + deadline;
        loop {
            let last = self.repository(server, id);
            if is_settled(&last, commit) {
                return last;
            }
            assert!(std::time::Instant::now() < until, "{commit} is not held: {last:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the branch of the watch is in this state.
    pub(crate) fn wait_for_state(&self, server: &Server, id: &str, state: &str) -> Value {
        let look = || {
            let shown = self.repository(server, id);
            (shown["branches"][0]["state"] == state).then_some(shown)
        };
        let instead = || format!("but {:#}", self.repository(server, id));
        eventually_or(&format!("branch that is {state}"), SOON, look, instead)
    }
}

/// Whether each branch of a shown watch holds the commit with nothing open.
pub(crate) fn is_settled(shown: &Value, commit: &str) -> bool {
    let branch = &shown["branches"][0];
    branch["held_commit"] == commit && branch["round"].is_null()
}

/// The rows of a page.
pub(crate) fn items(page: &Value) -> Vec<Value> {
    let rows = ["items", "data"].iter().find_map(|key| page[*key].as_array());
    rows.or_else(|| page.as_array()).unwrap_or_else(|| panic!("no rows in {page}")).clone()
}
