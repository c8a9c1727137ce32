//! What an operator sees of the house while it runs.

use serde_json::Value;

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::Subscriber,
};

#[test]
fn the_live_tree_shows_every_supervisor_and_who_works_for_this_app() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let gate = subscriber.hold_after(0);
    let id = app.watch(&server, &project);
    eventually("attempt at the gate", SOON, || (gate.arrived() > 0).then_some(()));

    let reply = server.ask_as_admin("GET", "/api/admin/tree");

    assert_eq!(reply.status, 200);
    let actors = names(&reply.json());
    for role in
        ["root", "breakers", "repositories", "scans", "apps", "housekeeping", "retention", "mirror-keeper"]
    {
        assert!(actors.iter().any(|actor| actor == role), "{role} is not in {actors:?}");
    }
    assert!(actors.contains(&format!("deliverer {}", app.id)), "{actors:?}");
    assert!(actors.iter().any(|actor| actor.starts_with("repository-watcher ")), "{actors:?}");
    gate.open();
    app.wait_until_held(&server, &id, &project.head());
    let overview = server.ask_as_admin("GET", "/api/admin/overview");
    assert_eq!(overview.status, 200);
    assert!(overview.json().is_object());
}

fn names(node: &Value) -> Vec<String> {
    let own = node["actor"].as_str().map(str::to_owned);
    let children = node["children"].as_array().into_iter().flatten().flat_map(names);
    own.into_iter().chain(children).collect()
}
