//! The worker of docs/workers.md for Rust, word for word; a story compares the two.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

/// Does the tasks of one command, one after another.
pub(super) struct Worker {
    pub(super) http: reqwest::Client,
    /// The address of the server, such as `https://tidings.example.org`.
    pub(super) server: String,
    pub(super) token: String,
    pub(super) claim_seconds: u64,
}

/// Why a task was not done.
enum Fault {
    /// No further attempt can help.
    GiveUp(&'static str),
    /// The queue says when the task is tried again.
    TryAgain(&'static str),
}

async fn work(payload: &Value) -> Result<Value, Fault> {
    let text = payload.get("text").ok_or(Fault::GiveUp("the payload has no text"))?;
    tokio::time::sleep(Duration::from_secs_f64(payload["seconds"].as_f64().unwrap_or(0.0))).await;
    let text = text.as_str().ok_or(Fault::TryAgain("the text is no text"))?;
    Ok(json!({ "words": text.split_whitespace().count() }))
}

impl Worker {
    /// Does tasks until the flag is set.
    ///
    /// # Errors
    /// The status by which a claim was refused.
    pub(super) async fn run(&self, is_stopping: &AtomicBool) -> Result<(), u16> {
        while !is_stopping.load(Ordering::Relaxed) {
            let wanted =
                json!({ "commands": ["count"], "claim_seconds": self.claim_seconds, "wait_seconds": 5 });
            let (status, given) = self.ask("/api/tasks/claim", &wanted).await;
            if !matches!(status, 200 | 204) {
                return Err(status);
            }
            for task in given["tasks"].as_array().into_iter().flatten() {
                self.act(task).await;
            }
        }
        Ok(())
    }

    async fn act(&self, task: &Value) {
        let done = tokio::select! {
            done = work(&task["payload"]) => done,
            // Another worker has the task.
            () = self.keep(task) => return,
        };
        let (verb, body) = match done {
            Ok(result) => ("complete", json!({ "result": result })),
            Err(Fault::GiveUp(error)) => ("fail", json!({ "error": error })),
            Err(Fault::TryAgain(reason)) => ("nack", json!({ "reason": reason })),
        };
        let status = self.say(task, verb, body).await;
        println!("{} {verb} {status}", task["id"]);
    }

    /// Extends the claim until the claim is lost.
    async fn keep(&self, task: &Value) {
        let extend = json!({ "extend_seconds": self.claim_seconds });
        loop {
            tokio::time::sleep(Duration::from_secs(self.claim_seconds) / 3).await;
            if self.say(task, "heartbeat", extend.clone()).await != 200 {
                return;
            }
        }
    }

    async fn say(&self, task: &Value, verb: &str, mut body: Value) -> u16 {
        body["token"] = task["token"].clone();
        let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().unwrap_or_default());
        self.ask(&path, &body).await.0
    }

    /// The status and the answer, which is asked for until it comes.
    async fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        loop {
            let request = self.http.post(format!("{}{path}", self.server)).bearer_auth(&self.token);
            let request = request.header("content-type", "application/json").body(body.to_string());
            if let Ok(answer) = request.timeout(Duration::from_secs(90)).send().await {
                let status = answer.status().as_u16();
                let is_final = status < 500 && status != 429;
                if let (true, Ok(text)) = (is_final, answer.bytes().await) {
                    return (status, serde_json::from_slice(&text).unwrap_or_default());
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}
