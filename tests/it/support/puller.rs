//! An app without an endpoint: it asks for what is pending, and checks everything as a subscriber does.

use std::io;

use serde_json::{Value, json};

use super::{
    api::App,
    model::{Arrival, Model},
    project::Tree,
    server::Server,
    subscriber::show,
};

/// Somebody who pulls one watch, and checks everything.
pub(crate) struct Puller {
    pub(crate) app: App,
    pub(crate) model: Model,
}

impl Puller {
    pub(crate) fn onboard(server: &Server) -> Self {
        let app = App::onboard_alone(server);
        Self { app, model: Model::new("unused") }
    }

    /// What is handed out; `None` where nothing is.
    pub(crate) fn ask(&self, server: &Server, id: &str, query: &str) -> Option<Value> {
        self.try_ask(server, id, query).expect("an answer")
    }

    /// The same from a server that may be killed meanwhile.
    pub(crate) fn try_ask(&self, server: &Server, id: &str, query: &str) -> io::Result<Option<Value>> {
        let path = format!("/api/repositories/{id}/pending?{query}");
        loop {
            let reply = server.ask("GET", &path, Some(&self.app.token), None)?;
            match reply.status {
                200 => return Ok(Some(reply.json())),
                204 => return Ok(None),
                // Changes are pending, and their contents are still being read.
                503 if reply.json()["type"] == "urn:tidings:problem:content-unavailable" => {}
                status => panic!("{status}: {}", reply.json()),
            }
        }
    }

    pub(crate) fn settle(&self, server: &Server, id: &str, body: &Value) -> (u16, Value) {
        self.try_settle(server, id, body).expect("an answer")
    }

    /// The same from a server that may be killed meanwhile.
    pub(crate) fn try_settle(&self, server: &Server, id: &str, body: &Value) -> io::Result<(u16, Value)> {
        let path = format!("/api/repositories/{id}/settle");
        let reply = server.ask("POST", &path, Some(&self.app.token), Some(body))?;
        Ok((reply.status, reply.json()))
    }

    /// Takes in what was handed out, up to and with a position.
    pub(crate) fn take(&mut self, pending: &Value, through: u64) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for change in pending["changes"].as_array().expect("changes") {
            let action = change["action"].as_str().expect("an action");
            if change["body"]["event"]["position"].as_u64().expect("a position") > through {
                break;
            }
            let arrival = self.model.pull(action, &change["body"]);
            arrivals.extend(arrival.inspect(|arrival| self.model.apply(arrival)));
        }
        arrivals
    }

    /// Pulls and settles until nothing is pending.
    pub(crate) fn drain(&mut self, server: &Server, id: &str) {
        while let Some(pending) = self.ask(server, id, "wait_seconds=1") {
            let last = pending["through"].as_u64().expect("a position");
            let arrivals = self.take(&pending, last);
            let body = json!({ "lease_id": pending["lease_id"], "accepted_through": pending["through"] });
            let (status, answer) = self.settle(server, id, &body);
            assert_eq!(status, 200, "{answer}");
            arrivals.iter().for_each(|arrival| self.model.acknowledged(arrival));
        }
    }

    pub(crate) fn assert_faultless(&self) {
        assert!(self.model.faults.is_empty(), "{:#?}", self.model.faults);
        assert!(self.model.surprises.is_empty(), "{:#?}", self.model.surprises);
    }

    pub(crate) fn assert_has(&self, id: &str, tree: &Tree) {
        self.assert_faultless();
        let mirror = self.model.mirrors.get(id).cloned().unwrap_or_default();
        assert_eq!(show(&mirror), show(tree));
    }
}
