//! A producer and worker, and the server that they ask.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{PAYLOAD, RESULT, served::Served};

/// A server for very many requests of one address with one token, on the database that
/// `TIDINGS_BENCH_DATABASE` names.
pub(crate) fn serve(home: &Path, own: &[(&str, &str)]) -> Served {
    let database = std::env::var("TIDINGS_BENCH_DATABASE").unwrap_or_default();
    let mut all = vec![
        ("ONBOARDING__MODE", "open"),
        ("SERVER__ADDRESS_RATE", "1000000/s"),
        ("SERVER__TOKEN_RATE", "1000000/s"),
        ("SERVER__CONNECTIONS_PER_ADDRESS_MAX", "2000"),
        ("SERVER__CONNECTIONS_MAX", "2000"),
    ];
    if !database.is_empty() {
        all.push(("DATABASE__URL", &database));
    }
    all.extend(own);
    Served::start(home, &home.join("data"), &all)
}

/// One app at one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Arc<str>,
    token: Arc<str>,
    began: Instant,
}

impl Client {
    pub(crate) async fn onboard(address: SocketAddr) -> Self {
        Self::with(reqwest::Client::builder(), address).await
    }

    /// The same from an address of this machine.
    pub(crate) async fn onboard_from(address: SocketAddr, own: IpAddr) -> Self {
        Self::with(reqwest::Client::builder().local_address(own), address).await
    }

    async fn with(http: reqwest::ClientBuilder, address: SocketAddr) -> Self {
        let http = http.no_proxy().build().expect("a client");
        let base = format!("http://{address}");
        Self { http, base: base.into(), token: "".into(), began: Instant::now() }.another().await
    }

    /// Another app at the same server, from the same address.
    pub(crate) async fn another(&self) -> Self {
        let nobody = Self { token: "".into(), ..self.clone() };
        let body = json!({ "app_name": "an app", "email": "a@example.org" });
        let answer = nobody.post("/api/apps/onboard", &body).await;
        Self { token: answer["token"].as_str().expect("a token").into(), ..nobody }
    }

    /// The same app where the server listens now.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { base: format!("http://{address}").into(), ..self.clone() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) async fn get(&self, path: &str) {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.bytes().await.expect("a body");
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    /// Posts this JSON, whatever the answer is.
    pub(crate) async fn tried(&self, path: &str, body: &str) {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        if let Ok(answer) = request.send().await {
            drop(answer.bytes().await);
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.send(self.http.post(format!("{}{path}", self.base)), path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Value {
        self.send(self.http.put(format!("{}{path}", self.base)), path, body).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder, path: &str, body: &Value) -> Value {
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let bytes = answer.bytes().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(crate) async fn create(&self, command: &str, count: usize) {
        let payload: Value = serde_json::from_str(PAYLOAD).expect("JSON");
        let task = json!({ "command": command, "payload": payload });
        if count == 1 {
            self.post("/api/tasks", &task).await;
        } else {
            self.post("/api/tasks/batch", &json!({ "tasks": vec![task; count] })).await;
        }
    }

    pub(crate) async fn claim(&self, wanted: &Value) -> Vec<Value> {
        self.post("/api/tasks/claim", wanted).await["tasks"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn complete(&self, claimed: &[Value]) {
        let result: Value = serde_json::from_str(RESULT).expect("JSON");
        match claimed {
            [] => {}
            [task] => {
                let path = format!("/api/tasks/{}/complete", task["id"].as_str().expect("an id"));
                self.post(&path, &json!({ "token": task["token"], "result": result })).await;
            }
            many => {
                let word = |task: &Value| json!({ "token": task["token"], "result": result });
                let words: Vec<Value> = many.iter().map(word).collect();
                self.post("/api/tasks/batch/complete", &json!({ "items": words })).await;
            }
        }
    }
}
