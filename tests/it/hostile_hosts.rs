//! Memory while Git hosts do their worst, as the kernel counts it for the real binary; and a
//! neighbour who does not notice. research/git-cdc.md 6, requirement 23.

use serde_json::json;

use crate::support::{
    api::App,
    git_host::Fault,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

/// What the process may hold at its worst moment.
const MOST_RESIDENT: u64 = 256 << 20;
/// Watches of each kind of host, so that what one costs is seen several times over.
const OF_EACH: usize = 4;

#[test]
fn hosts_that_do_their_worst_cost_bounded_memory_and_no_neighbour_notices() {
    let worst = [
        ("hangs", Fault::Hang),
        ("lists 100 MB of refs", Fault::FloodOfRefs(100_000_000)),
        ("lists refs that are no text", Fault::FloodOfRefs(4_000)),
        ("lies about the number of objects", Fault::ObjectCount(u32::MAX)),
        ("drips one byte a second", Fault::Drip(1)),
        ("stalls", Fault::Stall),
    ];
    let mut server = Server::prepare()
        .with("git.read_timeout", "3s")
        .with("git.poll_timeout", "5s")
        .with("git.fetch_timeout", "8s")
        .with("git.least_rate_window", "2s");
    server.run();
    let (subscriber, beside) = (Subscriber::start(), Subscriber::start());
    let (app, neighbour) = (App::onboard(&server, &subscriber), App::onboard(&server, &beside));
    let (host, project) = (Host::start_apart(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    let quiet = neighbour.watch_with(&server, &json!({ "url": host.url("o/r") }));
    neighbour.wait_until_held(&server, &quiet, &project.head());

    let (mut watched, mut hosts) = (Vec::new(), Vec::new());
    for (what, fault) in worst {
        let (host, project) = (Host::start_apart(), Project::with(&[("a", "1")]));
        for number in 0..OF_EACH {
            let name = format!("o/r{number}");
            host.publish(&project, &name);
            let id = app.watch_with(&server, &json!({ "url": host.url(&name) }));
            app.wait_until_held(&server, &id, &project.head());
            watched.push((what, id));
        }
        host.misbehave(Some(fault));
        project.write("b", &vec![b'x'; 100_000]);
        project.commit("second");
        for number in 0..OF_EACH {
            host.publish(&project, &format!("o/r{number}"));
        }
        hosts.push((host, project));
    }

    for round in 0..5 {
        project.write("a", format!("{round}").as_bytes());
        let commit = project.commit("another");
        host.publish(&project, "o/r");
        neighbour.wait_until_held(&server, &quiet, &commit);
    }
    // Names that are no text are passed by: no error, and nothing that was there goes.
    for (what, id) in watched.iter().filter(|(what, _)| *what != "lists refs that are no text") {
        let shown = eventually(&format!("error of a host that {what}"), SOON, || {
            let shown = app.repository(&server, id);
            shown["last_error"].is_string().then_some(shown)
        });
        println!("{what}: {}", shown["last_error"]);
    }
    let peak = server.peak_resident();
    println!("at most {} MiB were resident", peak >> 20);
    assert!(peak < MOST_RESIDENT, "{peak} bytes were resident");
    subscriber.assert_straight();
    beside.assert_straight();
}
