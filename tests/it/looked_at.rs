//! What an app, and the person at the keyboard, is told of the last look at a Git host.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

#[test]
fn the_last_look_tells_when_it_was_what_it_cost_and_why_it_failed() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    // One look at the registration, and then only those that are asked for.
    let mut server = Server::prepare().with("git.poll_min", "1h").with("git.poll_max", "1h");
    server.run();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    let look_after = |before: &Value| {
        eventually("another look", SOON, || {
            let scan = app.repository(&server, &id)["scan"].clone();
            (scan["last_at"].is_string() && scan["last_at"] != before["last_at"]).then_some(scan)
        })
    };
    let look = |before: &Value| {
        app.tell(&server, &id, "scan");
        look_after(before)
    };

    let first = look_after(&Value::Null);
    assert_eq!((&first["outcome"], &first["failures"]), (&json!("ok"), &json!(0)), "{first}");
    assert!(first["took_ms"].is_u64() && first["next_at"].is_string(), "{first}");
    let second = look(&first);
    assert_eq!((&second["outcome"], &second["bytes"]), (&json!("ok"), &json!(0)), "nothing moved: {second}");
    project.write("b", b"2");
    project.commit("second");
    host.push_main(&project, "o/r");
    let third = look(&second);
    assert!(third["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "it fetched: {third}");

    host.demand_token("somebody-elses");
    let failed = look(&third);
    assert_eq!((&failed["outcome"], &failed["failures"]), (&json!("auth_failed"), &json!(1)), "{failed}");
    assert_eq!(failed["reason"], "the Git host refuses the credential", "{failed}");
    assert_eq!(failed["bytes"], Value::Null, "{failed}");
    let mut command = server.command(&["repository", "show", &id]);
    command.env("TIDINGS_TOKEN", &app.token).env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let output = command.output().expect("it ran");
    let lines = String::from_utf8(output.stdout).expect("text");
    for part in [
        "breaker of the Git source",
        "breaker of the endpoint",
        "why the scan failed",
        "the Git host refuses the credential",
        "auth_failed, took",
    ] {
        assert!(lines.contains(part), "{part:?} is not in: {lines}");
    }
}
