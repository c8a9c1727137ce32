//! What an app allows binds, also over kills: a real receiver counts.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// The most that fell into any second, counted from whichever moment.
fn busiest_second(stamps: &[Instant]) -> usize {
    let within = |from: usize| {
        stamps[from..].iter().take_while(|at| **at - stamps[from] < Duration::from_secs(1)).count()
    };
    (0..stamps.len()).map(within).max().unwrap_or(0)
}

/// One strict lane: each request goes after the answer to the one before it, so that a machine that
/// is slow to note an arrival moves no two of them closer together than a turn less.
#[test]
fn fifty_a_second_are_never_passed_over_kills() {
    let subscriber = Subscriber::start();
    let stamps = Arc::new(Mutex::new(Vec::new()));
    let noted = stamps.clone();
    subscriber.script(move |_| {
        noted.lock().expect("sound").push(Instant::now());
        Answer::Accept
    });
    let count = || stamps.lock().expect("sound").len();
    let project = Project::new();
    for number in 0..230 {
        project.write(format!("file-{number:03}"), format!("{number}").as_bytes());
    }
    let head = project.commit("many");
    let mut server = Server::start();
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "rate": 50 } }));
    let id = app.watch(&server, &project);
    for kill in 0..4 {
        let before = count();
        eventually("delivery before the next kill", SOON, || (count() > before + 8 + 9 * kill).then_some(()));
        server.kill();
        subscriber.model().note_kill();
        server.run();
    }
    app.wait_until_held(&server, &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
    let mut stamps = stamps.lock().expect("sound").clone();
    stamps.sort_unstable();
    let most = busiest_second(&stamps);
    println!("{} requests over 4 kills, {most} in the busiest second", stamps.len());
    assert!(most <= 50, "{most} in one second");
}

#[test]
fn what_an_app_allows_is_checked_and_shown() {
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "max_concurrent": 2 } }));
    for (field, value) in [("rate", 0), ("rate", 10_001), ("max_concurrent", 0), ("max_concurrent", 1_025)] {
        let reply = app.ask(&server, "PATCH", "/api/app", Some(&json!({ "delivery": { field: value } })));
        assert_eq!(reply.status, 422, "{field} {value}: {}", reply.json());
        assert!(reply.json().to_string().contains(&format!("/delivery/{field}")), "{}", reply.json());
    }
    let reply = app.ask(&server, "PATCH", "/api/app", Some(&json!({ "delivery": { "rate": 7 } })));
    assert_eq!(reply.status, 200, "{}", reply.json());
    let shown = reply.json()["delivery"].clone();
    assert_eq!((&shown["rate"], &shown["max_concurrent"]), (&json!(7), &json!(2)));
}
