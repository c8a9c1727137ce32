//! A panic inside the handler of every actor of the tree, one after the other: it is restarted and
//! nothing is lost. The roles are read from the tree itself, so that a new one is in here the day it
//! is in there; one with a key says in [`key`] whose. Scans are ractor's factory: there the worker
//! panics, which `repository_watcher` shows.

use std::{sync::Arc, time::Duration};

use tidings_entity::id::AppId;
use tokio::time::Instant;

use crate::{
    circuit_breaker::endpoint_key,
    housekeeping::work_caller::WorkCallerMessage,
    ports::{SendFailure, Watch},
    supervision::{
        directory::Gauge,
        tree::{
            CIRCUIT_BREAKER, ChildSpec, DELIVERER, LEASE_KEEPER, REPOSITORY_WATCHER, ROOT, SCANS, SUBSCRIBER,
            TREE, WORK_CALLER,
        },
    },
    testing::{
        house::{House, URL, files, location, refs},
        transport::Answer,
    },
};

/// The key of the actor of a role that has one actor per key.
fn key(role: &str, app: &AppId, watch: &Watch) -> String {
    match role {
        CIRCUIT_BREAKER => endpoint_key(app.as_str()),
        REPOSITORY_WATCHER => watch.repository.to_string(),
        DELIVERER => app.to_string(),
        role => unreachable!("say whose {role} is meant"),
    }
}

/// Every role whose handler is ours and that somebody supervises, but for the actor of a subscription: the
/// store in memory keeps no ledgers, so no such actor runs here. Stories kill the server of one.
fn roles(spec: &'static ChildSpec, into: &mut Vec<&'static ChildSpec>) {
    if ![ROOT, SCANS, SUBSCRIBER].contains(&spec.id) {
        into.push(spec);
    }
    spec.children.iter().for_each(|child| roles(child, into));
}

/// A running house in which this role has something to do.
async fn house_with(role: &str) -> House {
    if role != LEASE_KEEPER {
        return House::running().await;
    }
    let mut house = House::replicas(1, Duration::from_secs(9)).remove(0);
    house.start().await;
    house
}

async fn panicked(house: &House, gauge: &Arc<Gauge>, role: &str) {
    let before = gauge.restarts();
    gauge.let_panic(1);
    // It has no timer: it hears of work alone.
    if let Some(caller) = house.context.directory.find(WORK_CALLER, "").filter(|_| role == WORK_CALLER) {
        caller.send(WorkCallerMessage::ReadyAll);
    }
    let done = async || gauge.panics_to_come() == 0 && gauge.restarts() > before;
    // An actor that only has a timer hears of it within an hour.
    let deadline = Instant::now() + Duration::from_secs(2 * 3_600);
    while !done().await {
        assert!(Instant::now() < deadline, "{role} was not restarted: {:#?}", house.handle().tree().await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_handler_of_any_actor_restarts_it_and_loses_nothing() {
    let mut all = Vec::new();
    roles(&TREE, &mut all);
    assert!(all.len() >= 10, "the tree has these roles");
    for spec in all {
        let role = spec.id;
        let house = house_with(role).await;
        let first = house.commit(&refs(&files(30, "one")));
        let app = house.app().await;
        let watch = house.watch(&app).await;
        house.until_held(&watch, first).await;
        // An endpoint that fails: its breaker is open, a round has begun, a lane waits.
        house.transport.answer_app(&app, Some(Answer::Failure(SendFailure::Connection)));
        let second = house.commit(&refs(&files(20, "two")));
        house.poke(&watch).await;
        let breaker = endpoint_key(app.as_str());
        house
            .until("the breaker runs", async || {
                house.context.directory.gauge(CIRCUIT_BREAKER, &breaker).is_some()
            })
            .await;

        let key = if spec.many { key(role, &app, &watch) } else { String::new() };
        let gauge = house.context.directory.gauge(role, &key).expect("it runs");
        panicked(&house, &gauge, role).await;

        house.transport.answer_app(&app, None);
        house.until_held(&watch, second).await;
        let third = house.commit(&refs(&files(25, "three")));
        house.until_held(&watch, third).await;
        house.assert_mirrors(&app, third);
        let taken = house.taken(&app).len();
        assert!(taken <= 30 + 30 + 25 + 64, "{role}: {taken} were taken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repository_whose_watcher_panics_each_time_is_contained() {
    let house = House::running().await;
    let other_url = "https://git.example/one/other";
    house.commit(&[("a", "1")]);
    house.git.commit(&location(other_url), "main", &[("b", "1")]);
    let app = house.app().await;
    let broken = house.watch_with(&app, URL, |_| {}).await;
    let well = house.watch_with(&app, other_url, |_| {}).await;
    house.until("both are there", async || house.taken(&app).len() == 2).await;

    let key = broken.repository.to_string();
    let gauge = house.context.directory.gauge(REPOSITORY_WATCHER, &key).expect("it runs");
    gauge.let_panic(u64::MAX);
    let head = house.commit(&[("a", "2")]);
    house.poke(&broken).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((5..30).contains(&gauge.restarts()), "{} restarts in ten minutes", gauge.restarts());
    for number in 0..3 {
        let next = house.git.commit(&location(other_url), "main", &[("b", &format!("2 {number}"))]);
        let start = Instant::now();
        house.poke(&well).await;
        house.until_held(&well, next).await;
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "a healthy neighbour waited {:?}",
            start.elapsed()
        );
    }
    gauge.let_panic(0);
    house.until_held(&broken, head).await;
}
