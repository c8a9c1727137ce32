//! The life of an app's endpoint: tried, changed, proved to, found again.

mod proved;
mod tried;
mod trusted;

use serde_json::{Value, json};

use crate::support::{http::Reply, peer::Peer, server::Server, subscriber::KEY};

/// An app whose endpoint is a peer of a story.
pub(crate) struct Owner {
    pub(crate) token: String,
}

impl Owner {
    /// Registers one at this address.
    pub(crate) fn at(server: &Server, base_url: Option<&str>) -> Self {
        Self::with(server, base_url, &json!({}))
    }

    /// The same with more fields.
    pub(crate) fn with(server: &Server, base_url: Option<&str>, more: &Value) -> Self {
        let mut body = json!({
            "app_name": "stories", "email": "stories@example.org", "client_auth_key": KEY,
        });
        if let Some(base_url) = base_url {
            body["base_url"] = json!(base_url);
        }
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let reply = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.json());
        Self { token: reply.json()["token"].as_str().expect("a token").to_owned() }
    }

    pub(crate) fn ask(&self, server: &Server, method: &str, path: &str, body: Option<&Value>) -> Reply {
        server.ask(method, path, Some(&self.token), body).expect("an answer")
    }

    /// Changes it; the whole answer.
    pub(crate) fn change(&self, server: &Server, body: &Value) -> Reply {
        self.ask(server, "PATCH", "/api/app", Some(body))
    }

    /// Changes it, which must work.
    pub(crate) fn set(&self, server: &Server, body: &Value) -> Value {
        let reply = self.change(server, body);
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    /// Sends a test delivery, which must be sent; its outcome.
    pub(crate) fn test(&self, server: &Server) -> Value {
        let reply = self.ask(server, "POST", "/api/app/test", None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }
}

/// The paths of what arrived.
pub(crate) fn paths(peer: &Peer) -> Vec<String> {
    peer.seen().into_iter().map(|seen| seen.path).collect()
}
