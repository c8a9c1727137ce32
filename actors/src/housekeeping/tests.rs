//! Upkeep: it comes round again, also after a failure, a hang and a kill.

use std::time::Duration;

use crate::{
    ports::{Store, StoreError},
    testing::{Fault, house::House},
    tree::{MIRROR_KEEPER, RETENTION},
};

#[tokio::test(start_paused = true)]
async fn old_history_goes_also_when_the_store_fails_hangs_and_the_actor_is_killed() {
    let mut house = House::with(|policy| {
        policy.history = Duration::from_secs(7_200);
        policy.upkeep_interval = Duration::from_secs(60);
    });
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("b", Some(crate::testing::transport::Answer::Status(422)));
    let second = house.commit(&[("a", "1"), ("b", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let third = house.commit(&[("a", "1")]);
    house.until_held(&watch, third).await;
    assert_eq!(house.letters(&app).await.len(), 1, "superseded, and still history");
    house.store.befall("prune", Fault::Hangs);
    house.store.befall("prune", Fault::Fails(StoreError::Unavailable("down".into())));
    house.kill(RETENTION, "");
    house.kill(MIRROR_KEEPER, "");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.letters(&app).await.len(), 1, "it is not old enough");
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert!(house.letters(&app).await.is_empty());
    assert!(house.store.watch(&app, &watch.id).await.is_ok());
}
