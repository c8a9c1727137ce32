//! The memory of payloads on their way to the queue.

use std::sync::Arc;

use tidings_entity::{
    id::{ObjectId, Sha256Hash},
    kind::{Operation, PayloadFormat, RoundKind},
};

use super::rendered;
use crate::{
    model::round::{Change, DeliveryId, Entry, RULES, Round, RoundSpec, Summary},
    ports::{DeliveryOrder, LaneFacts, LaneStore},
    testing::house::House,
    time::Timestamp,
};

#[tokio::test]
async fn payloads_take_memory_until_they_are_handed_over() {
    let house = House::new();
    house.commit(&[("a", "1")]);
    let (app, _, cursor) = house.watching().await;
    let lane = house.store.lane(&cursor).await.expect("a lane");
    let change = Change {
        operation: Operation::Create,
        path: b"a".to_vec(),
        old: None,
        new: Some(Entry { mode: 0o100_644, blob: ObjectId::new([1; 20]) }),
        replay_of: None,
    };
    let round = Round {
        cursor,
        number: 1,
        spec: RoundSpec { kind: RoundKind::Sync, held: None, target: None, bases: vec![], letters: vec![] },
        summary: Summary { deletes: 0, creates: 1, updates: 0, digest: Sha256Hash::of(b"") },
        rules: RULES,
        began_at: Timestamp(0),
        branch: "refs/heads/main".into(),
        url: String::new(),
        format: PayloadFormat::Docora,
        history_rewritten: false,
        skipped_commits: false,
        complete: false,
        position: 0,
    };
    let id = DeliveryId::of(&round.cursor, round.number, &change);
    let (remote, repository) = (lane.remote, lane.facts);
    let lane =
        Arc::new(LaneFacts { remote, repository, round: Arc::new(round), commit: None, inline_max: None });
    let order = DeliveryOrder { id, lane, change, renamed_from: None, position: 0, unobtainable: Vec::new() };
    let all = house.context.budget.free();
    let (changes, held) = rendered(&house.context, &app, vec![order]).await.expect("rendered");
    assert_eq!(changes.len(), 1);
    assert!(house.context.budget.free() < all, "the payload is counted while the batch waits for its turn");
    drop(held);
    assert_eq!(house.context.budget.free(), all);
}
