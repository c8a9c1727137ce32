//! A 2xx means on disk: whatever was answered is there after a kill, whatever was not is whole or
//! not there at all.

use serde_json::json;

use crate::support::{
    api::App,
    dice::Dice,
    kills, length,
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// Kinds of writes, behind each of which the server is killed.
const WRITES: u64 = 5;
/// Kills behind answered writes, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS_BEHIND: u64 = 6 * WRITES;
/// The same of a short story.
const KILLS_BEHIND_SHORT: u64 = 3 * WRITES;
/// Kills in the middle of a write, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS_WITHIN: u64 = 15;

#[test]
fn every_answered_write_survives_a_kill_right_behind_it() {
    let kills = length("TIDINGS_STORY_KILLS", KILLS_BEHIND, KILLS_BEHIND_SHORT);
    let projects: Vec<Project> = (0..kills.div_ceil(WRITES)).map(|_| Project::with(&[("a", "1")])).collect();
    let subscriber = Subscriber::start();
    // Nothing is delivered meanwhile; this is about the writes of the API.
    subscriber.script(|_| Answer::Refuse(503));
    let mut server = Server::start();
    let crash = |server: &mut Server| {
        server.kill();
        server.run();
    };
    for project in &projects {
        let app = App::onboard(&server, &subscriber);
        crash(&mut server);
        assert_eq!(app.ask(&server, "GET", "/api/app", None).json()["app_id"], app.id.as_str());

        let id = app.watch(&server, project);
        crash(&mut server);
        assert_eq!(app.repository(&server, &id)["repository_id"], id.as_str());

        app.patch(&server, &id, &json!({ "include": ["docs/**"], "mode": "every" }));
        crash(&mut server);
        let shown = app.repository(&server, &id);
        assert_eq!((&shown["include"], &shown["mode"]), (&json!(["docs/**"]), &json!("every")));

        app.tell(&server, &id, "pause");
        crash(&mut server);
        assert_eq!(app.repository(&server, &id)["state"], "paused");

        app.unwatch(&server, &id);
        crash(&mut server);
        assert_eq!(app.ask(&server, "GET", &format!("/api/repositories/{id}"), None).status, 404);
    }
}

#[test]
fn writes_that_a_kill_cut_off_are_whole_or_not_there() {
    let mut dice = Dice::thrown("durability");
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let mut app = App::onboard(&server, &subscriber);
    for _ in 0..kills(KILLS_WITHIN) {
        let (address, token, body) = (server.address(), app.token.clone(), json!({ "url": project.url() }));
        let asking = std::thread::spawn(move || {
            crate::support::http::ask(address, "POST", "/api/repositories", Some(&token), Some(&body))
        });
        std::thread::sleep(dice.up_to(std::time::Duration::from_millis(30)));
        server.kill();
        subscriber.model().note_kill();
        let answered = asking.join().expect("no panic").is_ok_and(|reply| reply.status == 201);
        server.run();

        let watches = app.ask(&server, "GET", "/api/repositories", None).json()["items"].clone();
        let watches = watches.as_array().expect("rows");
        assert!(watches.len() == 1 || (watches.is_empty() && !answered), "answered: {answered}, {watches:?}");
        let id = app.watch(&server, &project);
        app.wait_until_held(&server, &id, &project.head());
        subscriber.wait_for_tree(&id, &project.tree("HEAD"));
        app.unwatch(&server, &id);
        app = App::onboard(&server, &subscriber);
    }
    subscriber.assert_faultless();
}
