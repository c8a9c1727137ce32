//! Notices that an app asked for: what frames a round, and that a source is well again.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    git_host::Fault,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

fn actions(subscriber: &Subscriber) -> Vec<String> {
    subscriber.model().order.clone()
}

#[test]
fn a_round_is_followed_by_synced_and_a_resync_is_announced() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app =
        App::onboard_with(&server, &subscriber, &json!({ "delivery": { "synced": true, "resync": true } }));
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    assert_eq!(actions(&subscriber), ["create", "create", "synced"]);

    project.remove("a");
    let second = project.commit("second");
    app.wait_until_held(&server, &id, &second);
    app.tell(&server, &id, "resync");
    subscriber.wait_for("end of the resync", |model| (model.order.len() == 8).then_some(()));
    app.wait_until_held(&server, &id, &second);

    let told = actions(&subscriber);
    assert_eq!(told, ["create", "create", "synced", "delete", "synced", "resync", "create", "synced"]);
    let model = subscriber.model();
    let announced = &model.notices[2].body;
    assert_eq!(announced["event"]["type"], "resync");
    assert_eq!(announced["event"]["total"], 1);
    assert_eq!(announced["repository"]["repository_id"], id.as_str());
    assert_eq!(announced["event"]["round"], model.applied[3].round);
    let ids: Vec<&Value> = model.notices.iter().map(|notice| &notice.body["event"]["id"]).collect();
    assert!(ids.iter().all(|id| id.is_string()) && ids[0] != ids[1], "{ids:?}");
    drop(model);
    subscriber.assert_faultless();
}

#[test]
fn an_app_that_asked_hears_that_its_repository_is_well_again() {
    let host = Host::start();
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "sync_recovered": true } }));
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    host.misbehave(Some(Fault::Status(500, None)));
    eventually("open breaker", SOON, || {
        (app.repository(&server, &id)["breaker"]["state"] == "open").then_some(())
    });
    // The breaker is shown as open before the app was told so.
    subscriber.wait_for("the first notice", |model| (model.notices.len() == 1).then_some(()));

    host.misbehave(None);
    app.tell(&server, &id, "scan");

    subscriber.wait_for("both notices", |model| (model.notices.len() == 2).then_some(()));
    assert_eq!(actions(&subscriber), ["create", "sync_failed", "sync_recovered"]);
    eventually("closed breaker", SOON, || {
        (app.repository(&server, &id)["breaker"]["state"] == "closed").then_some(())
    });
    subscriber.assert_straight();
}

#[test]
fn who_did_not_ask_gets_changes_and_failures_only() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    app.tell(&server, &id, "resync");
    subscriber.wait_for("the resync", |model| (model.applied.len() == 2).then_some(()));
    app.wait_until_held(&server, &id, &project.head());

    assert_eq!(actions(&subscriber), ["create", "create"]);
    subscriber.assert_faultless();
}
