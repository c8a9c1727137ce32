//! Reading by hand what deliveries leave out: contents by blob id.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    http,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// Bytes of a file that is larger than what watches of these stories inline.
const LARGE: usize = 3 << 20;
/// What they inline at most.
const INLINE_MAX: u64 = 1_000;

/// Content that does not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    Dice::of(seed).bytes(bytes)
}

fn path(watch: &str, blob: &str) -> String {
    format!("/api/repositories/{watch}/blobs/{blob}")
}

fn status(app: &App, server: &Server, path: &str) -> u16 {
    app.ask(server, "GET", path, None).status
}

/// What the last delivery said of a file.
fn file(subscriber: &Subscriber, path: &[u8]) -> Value {
    let model = subscriber.model();
    let change = model.applied.iter().rfind(|change| change.path == path).expect("a delivery");
    change.body["file"].clone()
}

#[test]
fn a_file_that_is_too_large_for_a_delivery_is_read_at_its_content_url_until_it_is_gone() {
    let project = Project::with(&[("small", "1")]);
    let content = noise(1, LARGE);
    project.write("large", &content);
    let head = project.commit("a large one");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": project.url(), "max_size": INLINE_MAX }));
    app.wait_until_held(&server, &id, &head);
    let large = file(&subscriber, b"large");
    assert_eq!(
        (&large["content_omitted"], &large["content"]),
        (&json!("too_large"), &Value::Null),
        "{large}"
    );
    let url = large["content_url"].as_str().expect("a URL").to_owned();

    let reply = app.ask(&server, "GET", &url, None);
    assert_eq!(reply.status, 200);
    assert!(reply.message.body == content, "the same bytes");
    let tag = reply.message.header("etag").expect("an ETag").to_owned();
    let head = format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let again = format!("{head}authorization: Bearer {}\r\nif-none-match: {tag}\r\n\r\n", app.token);
    assert_eq!(http::raw(server.address(), again.as_bytes()).expect("an answer").status, 304);
    assert_eq!(server.ask("GET", &url, None, None).expect("an answer").status, 401);
    let stranger = App::onboard(&server, &Subscriber::start());
    assert_eq!(status(&stranger, &server, &url), 404, "the watch of another app");

    // While the delete waits at the receiver the app still holds the file.
    let gate = subscriber.hold_after(0);
    project.remove("large");
    let gone = project.commit("it goes");
    app.tell(&server, &id, "scan");
    eventually("the delete", SOON, || (gate.arrived() > 0).then_some(()));
    assert_eq!(status(&app, &server, &url), 200);
    gate.open();
    app.wait_until_held(&server, &id, &gone);
    assert_eq!(status(&app, &server, &url), 410);
}

#[test]
fn the_next_content_is_served_before_it_is_delivered() {
    let project = Project::with(&[("a", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": project.url() }));
    app.wait_until_held(&server, &id, &project.head());
    subscriber.script(|_| Answer::Refuse(503));
    project.write("b", b"the next");
    project.commit("second");
    let blob = project.git(["rev-parse", "HEAD:b"]);
    app.tell(&server, &id, "scan");
    eventually("the round", SOON, || {
        app.repository(&server, &id)["branches"][0]["round"].is_object().then_some(())
    });
    let reply = app.ask(&server, "GET", &path(&id, &blob), None);
    assert_eq!((reply.status, reply.message.body.as_slice()), (200, b"the next".as_slice()));
}

#[test]
fn a_watch_gives_only_what_its_own_branch_and_paths_show_of_a_shared_mirror() {
    let (host, project) = (Host::start(), Project::with(&[("docs/a", "of both"), ("src/a", "of main")]));
    project.git(["checkout", "-q", "-b", "secret"]);
    project.write("docs/plan", b"of the other branch");
    let secret = project.commit("secret");
    project.git(["checkout", "-q", "main"]);
    host.publish(&project, "o/r");
    let blob = |name: &str| project.git(["rev-parse", name]);
    let (shared, narrow) = (blob("main:docs/a"), blob("main:src/a"));
    let hidden = blob("secret:docs/plan");

    let (server, one, other) = (Server::start(), Subscriber::start(), Subscriber::start());
    let (outsider, insider) = (App::onboard(&server, &one), App::onboard(&server, &other));
    let body = json!({ "url": host.url("o/r"), "branch": "main", "include": ["docs/**"] });
    let outside = outsider.watch_with(&server, &body);
    let inside = insider.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "secret" }));
    outsider.wait_until_held(&server, &outside, &project.head());
    insider.wait_until_held(&server, &inside, &secret);
    let mirrors = std::fs::read_dir(server.data().join("mirrors")).expect("a folder").count();
    assert_eq!(mirrors, 1, "both read one mirror");

    for (blob, of_outsider, of_insider) in [
        (shared.as_str(), 200, 200),
        (&narrow, 410, 200),
        (&hidden, 410, 200),
        // Objects that are no files, and one that is nowhere.
        (&blob("main^{tree}"), 410, 410),
        (&blob("main:docs"), 410, 410),
        (&project.head(), 410, 410),
        (&"ab".repeat(20), 410, 410),
    ] {
        assert_eq!(status(&outsider, &server, &path(&outside, blob)), of_outsider, "{blob}");
        assert_eq!(status(&insider, &server, &path(&inside, blob)), of_insider, "{blob}");
        assert_eq!(status(&outsider, &server, &path(&inside, blob)), 404, "{blob}");
    }
}

#[test]
fn a_content_that_the_mirror_lacks_is_fetched_also_when_all_of_it_is_lost() {
    let (host, project) = (Host::start(), Project::with(&[("src/a", "1"), ("docs/a", "small")]));
    let content = noise(2, 100_000);
    project.write("docs/large", &content);
    let head = project.commit("second");
    host.publish(&project, "o/r");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let body = json!({ "url": host.url("o/r"), "include": ["docs/**"], "content": "none" });
    let id = app.watch_with(&server, &body);
    app.wait_until_held(&server, &id, &head);
    let url = path(&id, &project.git(["rev-parse", "HEAD:docs/large"]));
    host.take_seen();
    let read = || {
        let reply = app.ask(&server, "GET", &url, None);
        assert_eq!(reply.status, 200);
        assert!(reply.message.body == content, "the same bytes");
        host.take_seen().iter().filter(|seen| seen.body.contains("want ")).count()
    };
    assert_eq!(read(), 1, "the content alone");
    assert_eq!(read(), 0, "it is here now");
    app.tell(&server, &id, "pause");
    for mirror in std::fs::read_dir(server.data().join("mirrors")).expect("a folder").flatten() {
        std::fs::rename(mirror.path(), server.data().join("lost")).expect("it goes");
    }
    assert_eq!(read(), 2, "the trees, and the content");
}

#[test]
fn the_files_that_are_held_are_listed_as_the_view_shows_them_and_only_once_they_are_held() {
    let project = Project::new();
    for file in 0..120 {
        project.write(format!("docs/{}/page{file}", file % 7), file.to_string().as_bytes());
    }
    project.write("src/a", b"not seen");
    let first = project.commit("first");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": project.url(), "include": ["docs/**"] }));
    app.wait_until_held(&server, &id, &first);
    let listed = || {
        let (mut files, mut query) = (Vec::new(), "?limit=50".to_owned());
        loop {
            let page = app.ask(&server, "GET", &format!("/api/repositories/{id}/files{query}"), None).json();
            let file = |file: &Value| {
                let text = |key: &str| file[key].as_str().expect("a text").to_owned();
                format!("{} blob {}\t{}", text("mode"), text("blob"), text("path"))
            };
            files.extend(page["items"].as_array().expect("items").iter().map(file));
            let Some(next) = page["next_cursor"].as_str() else {
                return (page["held_commit"].clone(), files);
            };
            query = format!("?limit=50&cursor={next}");
        }
    };
    let told = |commit: &str| -> Vec<String> {
        project.git(["ls-tree", "-r", commit, "docs"]).lines().map(str::to_owned).collect()
    };
    assert_eq!(listed(), (json!(first), told(&first)));

    let gate = subscriber.hold_after(0);
    project.write("docs/new", b"2");
    let second = project.commit("second");
    app.tell(&server, &id, "scan");
    eventually("the create", SOON, || (gate.arrived() > 0).then_some(()));
    assert_eq!(listed(), (json!(first), told(&first)), "what is on its way is not held");
    gate.open();
    app.wait_until_held(&server, &id, &second);
    assert_eq!(listed(), (json!(second), told(&second)));
}
