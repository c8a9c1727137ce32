//! The whole tree: every actor starts, stops, and comes back.

use std::time::Duration;

use crate::{
    ports::{SendFailure, StoreError},
    supervision::{
        directory::TreeNode,
        tree::{
            APPS, BREAKERS, HOUSEKEEPING, MIRROR_KEEPER, REPOSITORIES, REPOSITORY_WATCHER, RETENTION, ROOT,
            SCANS,
        },
    },
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

fn names(node: &TreeNode, into: &mut Vec<String>) {
    into.push(node.actor.clone());
    node.children.iter().for_each(|child| names(child, into));
}

#[tokio::test(start_paused = true)]
async fn every_actor_of_the_tree_starts_and_stops() {
    let mut house = House::new();
    house.commit(&[("a", "1")]);
    house.start().await;
    let (app, watch, _) = house.watching().await;
    house.until("it delivers", async || !house.taken(&app).is_empty()).await;
    let mut running = Vec::new();
    let tree = house.handle().tree().await;
    names(&tree, &mut running);
    for role in [ROOT, BREAKERS, REPOSITORIES, SCANS, APPS, HOUSEKEEPING, RETENTION, MIRROR_KEEPER] {
        assert!(running.iter().any(|name| name == role), "{role} is missing: {running:?}");
    }
    assert!(running.contains(&format!("{REPOSITORY_WATCHER} {}", watch.repository)));
    let root = house.context.directory.cell(ROOT, "").expect("it runs");
    let leaf = house.context.directory.cell(RETENTION, "").expect("it runs");
    house.stop(Duration::from_secs(1)).await;
    for actor in [root, leaf] {
        assert_eq!(actor.get_status(), ractor::ActorStatus::Stopped);
    }
    let polls = house.git.polls();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.git.polls(), polls, "nobody works any more");
}

#[tokio::test(start_paused = true)]
async fn every_static_actor_comes_back_after_a_kill_with_all_who_have_work() {
    for role in [BREAKERS, REPOSITORIES, SCANS, APPS, HOUSEKEEPING, RETENTION, MIRROR_KEEPER] {
        let house = House::running().await;
        let first = house.commit(&refs(&files(50, "one")));
        let app = house.app().await;
        let watch = house.watch(&app).await;
        house.until_held(&watch, first).await;
        house.transport.answer_app(&app, Some(Answer::Failure(SendFailure::Connection)));
        let second = house.commit(&refs(&files(40, "two")));
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        house.kill(role, "");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(house.context.directory.cell(role, "").is_some(), "{role} runs again");
        house.transport.answer_app(&app, None);
        house.until_held(&watch, second).await;
        house.assert_mirrors(&app, second);
        let third = house.commit(&[("last", "1")]);
        house.until_held(&watch, third).await;
        assert_eq!(house.context.fatal.borrow().clone(), None, "{role}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_store_cannot_be_read_does_not_start() {
    let house = House::new();
    house.store.befall("pending", Fault::Fails(StoreError::Unavailable("down".into())));
    assert!(crate::handle::Tree::start(house.context.clone()).await.is_err());
}
