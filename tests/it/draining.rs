//! SIGTERM: what is under way ends, what was answered is settled, and nothing of it comes again.

use std::{thread, time::Duration};

use rustix::process::Signal;

use crate::support::{
    api::App,
    churn::Churn,
    dice::Dice,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// From the signal to the end, whatever receivers do.
const STOP: Duration = Duration::from_secs(25);

#[test]
fn an_attempt_under_way_is_awaited_and_not_repeated() {
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let gate = subscriber.hold_after(1);
    let id = app.watch(&server, &project);
    eventually("attempt at the gate", SOON, || (gate.arrived() > 0).then_some(()));

    server.signal(Signal::TERM);
    eventually("refusal of new work", SOON, || {
        // Either it says that it is stopping, or its door is closed already.
        match server.ask("GET", "/readyz", None, None) {
            Ok(reply) => (reply.status == 503).then_some(()),
            Err(_) => Some(()),
        }
    });
    gate.open();
    let status = server.ended();
    assert!(status.success(), "{status}");
    // The door closes before the last lane has heard of the end, so one more may have been sent.
    let taken = subscriber.applied().len();
    assert!(taken >= 2, "the awaited attempt was given up");

    // No kill is noted: any repeat is a fault from here on.
    subscriber.accept_all();
    server.run();
    app.wait_until_held(&server, &id, &project.head());
    subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    subscriber.assert_straight();
    assert_eq!(subscriber.model().repeats, 0);
}

#[test]
fn a_receiver_that_never_answers_does_not_hold_up_the_end() {
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::with(&[("a", "1")]);
    subscriber.script(|_| Answer::Hang);
    let id = app.watch(&server, &project);
    subscriber.wait_for("attempt", |model| (model.requests > 0).then_some(()));

    let (status, took) = server.terminate();

    assert!(status.success(), "{status}");
    assert!(took <= STOP, "it took {took:?}");
    subscriber.accept_all();
    server.run();
    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_straight();
}

#[test]
fn twenty_clean_stops_under_load_repeat_nothing() {
    let mut dice = Dice::thrown("draining");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::new();
    let mut churn = Churn::begin(&project, 60);
    let mut delays = Dice::of(dice.number());
    subscriber.script(move |_| Answer::AcceptAfter(delays.up_to(Duration::from_millis(10))));
    let id = app.watch(&server, &project);

    for _ in 0..20 {
        thread::sleep(dice.up_to(Duration::from_millis(400)));
        let (status, took) = server.terminate();
        assert!(status.success() && took <= STOP, "{status} after {took:?}");
        churn.commit(&project, &mut dice);
        server.run();
    }

    let head = project.head();
    app.wait_until_held(&server, &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
    assert_eq!(subscriber.model().repeats, 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::with(&[("a", "1")]);
    subscriber.script(|_| Answer::Hang);
    app.watch(&server, &project);
    subscriber.wait_for("attempt", |model| (model.requests > 0).then_some(()));

    // To the process and to its group, as `timeout` does: one wish.
    server.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(10));
    server.signal(Signal::TERM);
    eventually("stopping server", SOON, || server.log().contains("stopping").then_some(()));
    thread::sleep(Duration::from_secs(1));
    assert!(!server.log().contains("a second"), "it took one wish for two");
    let (status, took) = server.terminate();

    assert!(!status.success(), "{status}");
    // Without a second signal the attempt would be awaited for the deadline of a stop, 20 seconds.
    assert!(took < Duration::from_secs(15), "it took {took:?}");
}
