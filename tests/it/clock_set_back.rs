//! A clock that is set back (by a person, or by the first word of a time server) makes nobody wait for the
//! time that is to come again: not an endpoint whose breaker is open, not a repository that failed, not a new
//! watch, and not what a restart reads from the rows.

use std::fs;

use crate::support::{
    api::{App, items},
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// By so many seconds: more than any wait of this story, and less than receivers take for a repetition.
const BACK: i64 = 240;

#[test]
fn a_clock_that_is_set_back_makes_nothing_wait_for_it() {
    let mut server = Server::prepare().with_clock_of_its_own();
    if !server.move_clock(0) {
        return println!("skipped: there is no libfaketime here");
    }
    server.run();
    let (ill, well) = (Subscriber::start(), Subscriber::start());
    let (refused, absent) = (Project::with(&[("a", "1")]), Project::with(&[("a", "1")]));
    let (app, other) = (App::onboard(&server, &ill), App::onboard(&server, &well));
    let (ill_watch, absent_watch) = (app.watch(&server, &refused), other.watch(&server, &absent));
    app.wait_until_held(&server, &ill_watch, &refused.head());
    other.wait_until_held(&server, &absent_watch, &absent.head());

    ill.script(|_| Answer::Refuse(503));
    refused.write("a", b"2");
    refused.commit("second");
    let away = absent.path().with_file_name("away");
    fs::rename(absent.path(), &away).expect("moved away");
    let is_open = |kind: &str| {
        let breakers = items(&server.ask_as_admin("GET", "/api/admin/breakers").json());
        breakers.iter().any(|row| row["kind"] == kind && row["state"] == "open")
    };
    eventually("open breakers", SOON, || (is_open("endpoint") && is_open("source")).then_some(()));
    server.move_clock(-BACK);
    ill.accept_all();
    fs::rename(&away, absent.path()).expect("moved back");
    absent.write("a", b"2");
    absent.commit("second");

    let fresh = Project::with(&[("a", "1")]);
    let fresh_watch = other.watch(&server, &fresh);
    eventually("the first change of a new watch", SOON, || {
        (well.mirror(&fresh_watch) == fresh.tree("HEAD")).then_some(())
    });
    // A probe comes once a minute at least.
    for (subscriber, watch, project) in [(&ill, &ill_watch, &refused), (&well, &absent_watch, &absent)] {
        eventually("what waited for a breaker", 2 * SOON, || {
            (subscriber.mirror(watch) == project.tree("HEAD")).then_some(())
        });
    }
    server.kill();
    for subscriber in [&ill, &well] {
        subscriber.model().note_kill();
    }
    server.run();
    fresh.write("a", b"2");
    let head = fresh.commit("after the restart");
    other.wait_until_held(&server, &fresh_watch, &head);
    for subscriber in [&ill, &well] {
        subscriber.assert_faultless();
    }
}
