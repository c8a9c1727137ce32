//! A hundred apps, a quarter of them with receivers that do harm in each way we know: the others get
//! everything, in order, while they are at it, and the server stays small.

use std::{collections::BTreeMap, net::TcpListener};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    misdeeds::{Misdeed, misdeeds},
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

const HEALTHY: usize = 76;
/// Attempts that each app allows at the same time; each hostile one has more watches.
const AT_ONCE: u64 = 2;
const WATCHES: usize = 3;

/// How our receiver commits a misdeed.
fn answer(misdeed: &Misdeed) -> Answer {
    match misdeed {
        Misdeed::Hang => Answer::Hang,
        Misdeed::Drip => Answer::Drip,
        Misdeed::Flood => Answer::Flood,
        Misdeed::Vanish => Answer::Vanish,
        Misdeed::TakeAndVanish => Answer::AcceptAndVanish,
        Misdeed::Say(bytes) => Answer::Say(bytes.clone()),
    }
}

/// Where a hostile app of its own kind receives, and what listens there.
struct Hostile {
    name: &'static str,
    app: App,
    subscriber: Option<Subscriber>,
}

fn onboard_hostile(server: &Server, canary: &Subscriber, silent: &TcpListener) -> Vec<Hostile> {
    let settings = json!({ "delivery": { "max_concurrent": AT_ONCE, "synced": true } });
    let mut all = Vec::new();
    for (name, misdeed) in misdeeds(&canary.url()) {
        let subscriber = Subscriber::start();
        subscriber.script(move |_| answer(&misdeed));
        let app = App::onboard_with(server, &subscriber, &settings);
        all.push(Hostile { name, app, subscriber: Some(subscriber) });
    }
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let plain = Subscriber::start();
    let silent = silent.local_addr().expect("bound");
    let elsewhere = [
        ("nobody listens", format!("http://{closed}")),
        ("no TLS where it is promised", format!("https://{}", plain.address())),
        ("TLS that never begins", format!("https://{silent}")),
    ];
    for (name, url) in elsewhere {
        let mut fields = settings.clone();
        fields["base_url"] = json!(url);
        let app = App::onboard_with(server, &plain, &fields);
        all.push(Hostile { name, app, subscriber: None });
    }
    all.last_mut().expect("some").subscriber = Some(plain);
    all
}

/// What each deliverer says is on its way, by app.
fn on_their_way(server: &Server) -> BTreeMap<String, u64> {
    fn collect(node: &Value, found: &mut BTreeMap<String, u64>) {
        let state = node["state"].as_str().unwrap_or_default();
        if let Some((_, way)) = state.split_once(" lanes, ").or_else(|| state.split_once(" lane, ")) {
            let count = way.split(' ').next().and_then(|count| count.parse().ok()).expect("a number");
            let actor = node["actor"].as_str().expect("its name");
            found.insert(actor.split(' ').next_back().expect("its key").to_owned(), count);
        }
        for child in node["children"].as_array().into_iter().flatten() {
            collect(child, found);
        }
    }
    let mut found = BTreeMap::new();
    collect(&server.ask_as_admin("GET", "/api/admin/tree").json(), &mut found);
    found
}

#[test]
fn healthy_apps_get_everything_in_order_while_hostile_ones_are_at_it() {
    let projects: Vec<Project> = (0..WATCHES).map(|_| Project::with(&[("a", "1"), ("b", "1")])).collect();
    let project = &projects[0];
    let canary = Subscriber::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut server = Server::prepare().with("delivery.attempt_timeout", "2s");
    server.run();
    let healthy: Vec<(Subscriber, App, String)> = (0..HEALTHY)
        .map(|_| {
            let subscriber = Subscriber::start();
            let app = App::onboard(&server, &subscriber);
            let id = app.watch(&server, project);
            (subscriber, app, id)
        })
        .collect();
    for (subscriber, app, id) in &healthy {
        app.wait_until_held(&server, id, &project.head());
        subscriber.wait_for_tree(id, &project.tree("HEAD"));
    }
    let before = server.resident();

    let hostile = onboard_hostile(&server, &canary, &silent);
    assert!(hostile.len() >= 20 && hostile.len() + HEALTHY >= 100, "{} kinds", hostile.len());
    for hostile in &hostile {
        for project in &projects {
            hostile.app.watch(&server, project);
        }
    }
    for hostile in &hostile {
        let Some(subscriber) = hostile.subscriber.as_ref().filter(|_| !hostile.name.contains("TLS")) else {
            continue;
        };
        let attempted = || (subscriber.model().requests > 0).then_some(());
        eventually(&format!("attempt at the receiver: {}", hostile.name), SOON, attempted);
    }
    for round in 0..3 {
        project.write("a", format!("round {round}").as_bytes());
        project.write(format!("new-{round}"), b"more");
        let head = project.commit("next");
        let tree = project.tree(&head);
        for (subscriber, app, id) in &healthy {
            app.wait_until_held(&server, id, &head);
            subscriber.wait_for_tree(id, &tree);
        }
        let flying = on_their_way(&server);
        assert!(!flying.is_empty(), "no deliverer says what it does");
        for hostile in &hostile {
            let count = flying.get(&hostile.app.id).copied().unwrap_or(0);
            assert!(count <= AT_ONCE, "{}: {count} on their way", hostile.name);
        }
    }
    for (subscriber, app, id) in &healthy {
        subscriber.assert_straight();
        app.wait_until_held(&server, id, &project.head());
        assert!(app.dead_letters(&server).is_empty());
    }
    assert_eq!(canary.model().requests, 0, "a redirect was followed");
    let grown = server.resident().saturating_sub(before);
    println!("{} hostile apps, {HEALTHY} healthy ones, memory grew by {grown} bytes", hostile.len());
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
}
