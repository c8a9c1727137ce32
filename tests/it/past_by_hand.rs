//! Rounds, changes, deliveries and events on the command line.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::{
    deliveries::refuse,
    past_rounds::texts,
    support::{
        api::App,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::Subscriber,
    },
};

/// A process that ends with its story.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_command_line_shows_rounds_changes_deliveries_and_events() {
    let project = Project::with(&[("a", "1"), ("bad", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    subscriber.script(refuse(&["bad"], 422));
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let address = format!("http://{}", server.address());
    let command = |arguments: &[&str]| {
        let mut command = server.command(arguments);
        command.args(["--server", &address]).env("TIDINGS_TOKEN", &app.token);
        command
    };
    let json_of = |arguments: &[&str]| -> Value {
        let ended = command(&[arguments, &["--json"]].concat()).output().expect("it runs");
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        serde_json::from_slice(&ended.stdout).expect("JSON")
    };
    let rounds = json_of(&["repository", "rounds", &id]);
    let round = rounds[0]["round"].to_string();
    let changes = json_of(&["repository", "changes", &id, "--round", &round]);
    assert_eq!(texts(changes.as_array().expect("a list"), "state"), ["delivered", "parked"]);
    let parked = json_of(&["delivery", "list", "--status", "parked"]);
    // The rows of attempts are written beside the settlement, not before it.
    let shown = eventually("rows of the attempts", SOON, || {
        let shown = json_of(&["delivery", "show", parked[0]["id"].as_str().expect("an id")]);
        shown["tries"][0].is_object().then_some(shown)
    });
    assert_eq!((&shown["path"], &shown["tries"][0]["http_status"]), (&json!("bad"), &json!(422)));
    let lines = command(&["delivery", "list", "--limit", "1"]).output().expect("it runs");
    let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
    assert!(lines.contains("bad") && lines.contains("there are more than 1"), "{lines}");

    let after = format!("{round}.0");
    let mut tail = command(&["repository", "events", &id, "--after", &after, "--json"]);
    let mut tail = Ended(tail.stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut line = String::new();
    let mut out = BufReader::new(tail.0.stdout.take().expect("a pipe"));
    out.read_line(&mut line).expect("a line");
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event["path"], &event["state"]), (&json!("bad"), &json!("parked")));
    let refused = command(&["repository", "events", &id, "--after", "nonsense"]).output().expect("it ends");
    assert_eq!(refused.status.code(), Some(65), "{}", String::from_utf8_lossy(&refused.stderr));
}
