//! One filter from the search to the action: what was given up is found by it, counted by it, sent again by it,
//! and found again among the deliveries.

use serde_json::{Value, json};

use crate::{
    deliveries::refuse,
    past_rounds::texts,
    support::{
        api::App,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::{Answer, Subscriber},
    },
};

/// Runs a verb as the app; its exit code, what it printed, and what it said.
fn run(server: &Server, app: &App, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = server.command(arguments);
    command.arg("--json").env("TIDINGS_TOKEN", &app.token);
    command.env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let output = command.output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

fn paths(list: &Value) -> Vec<String> {
    texts(list.as_array().expect("a list"), "path")
}

#[test]
fn what_a_filter_finds_is_counted_and_sent_again() {
    let files = [("README", "1"), ("docs/a.md", "1"), ("docs/b.md", "1"), ("src/x", "1")];
    let project = Project::with(&files);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    subscriber.script(refuse(&["docs/a.md", "docs/b.md", "src/x"], 404));
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());

    let listed = |verb: &[&str], filter: &str| {
        let (code, list, said) = run(&server, &app, &[verb, &["list", "--query", filter]].concat());
        assert_eq!(code, Some(0), "{filter}: {said}");
        paths(&list)
    };
    let docs = "state:open path:docs/** NOT b.md since:-1h";
    assert_eq!(listed(&["dead-letter"], docs), ["docs/a.md"]);
    assert_eq!(listed(&["delivery"], "state:parked status:404 path:docs/**"), ["docs/b.md", "docs/a.md"]);
    assert_eq!(listed(&["delivery"], "NOT state:parked"), ["README"]);
    assert_eq!(listed(&["delivery"], "until:-1h OR repository:nothing"), Vec::<String>::new());
    let (code, _, said) = run(&server, &app, &["dead-letter", "list", "-q", "stat:open"]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("column 1") && said.contains("did you mean state?"), "{said}");

    let redrive =
        |more: &[&str]| run(&server, &app, &[&["dead-letter", "redrive", "-q", docs], more].concat());
    let (code, dry, said) = redrive(&["--dry-run"]);
    assert_eq!((code, &dry["would_request"]), (Some(0), &json!(1)), "{said}");
    assert_eq!(texts(dry["sample"].as_array().expect("a sample"), "path"), ["docs/a.md"]);
    assert_eq!(app.dead_letters(&server).len(), 3, "a dry run sends nothing");

    subscriber.script(|_| Answer::Accept);
    let (code, done, said) = redrive(&["--wait"]);
    assert_eq!((code, &done["sent"]), (Some(0), &json!(1)), "{said}");
    eventually("the end of the redrive", SOON, || {
        (listed(&["dead-letter"], "state:redriven") == ["docs/a.md"]).then_some(())
    });
    let dismiss = |more: &[&str]| {
        let (code, done, said) =
            run(&server, &app, &[&["dead-letter", "dismiss", "-q", "path:~src/X OR nowhere"], more].concat());
        assert_eq!(code, Some(0), "{said}");
        done
    };
    assert_eq!(dismiss(&["--dry-run"])["would_request"], 1);
    assert_eq!(dismiss(&[])["dismissed"], 1);
    assert_eq!(listed(&["dead-letter"], "state:open"), ["docs/b.md"]);
    let held = |filter| run(&server, &app, &["repository", "list", "-q", filter]).1.as_array().map(Vec::len);
    assert_eq!((held("state:active condition:behind"), held("NOT condition:behind")), (Some(0), Some(1)));
}

#[test]
fn a_repository_is_found_by_its_address_as_it_was_given_and_as_it_is_normalised() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "one/two");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let (given, normalised) = (format!("git+{}", host.url("one/two")), host.url("one/two"));
    app.watch_with(&server, &json!({ "url": given }));
    for (filter, count) in [
        (format!("url:{given}"), 1),
        (format!("url:{normalised}"), 1),
        (format!("NOT url:{given}"), 0),
        ("url:~git+http".to_owned(), 1),
        ("url:http://git.example/one/two".to_owned(), 0),
    ] {
        let (code, list, said) = run(&server, &app, &["repository", "list", "-q", &filter]);
        assert_eq!((code, list.as_array().map(Vec::len)), (Some(0), Some(count)), "{filter}: {said}");
    }
}
