//! Preparing deliveries: what is read, hashed, remembered and left out.

use std::sync::Arc;

use tidings_actors::{
    ports::{BlobFacts, DeliveryOrder, GitError, PrepareError, Transport, UpkeepStore},
    time::Timestamp,
};
use tidings_entity::{
    id::Sha256Hash,
    kind::{ContentRule, Operation},
};

use crate::support::sender::{World, blob, order, text_of, with_view, world};

async fn know(world: &World, number: u8, facts: BlobFacts) {
    world.store.remember_blobs(&[(blob(number), facts)], Timestamp(0)).await.expect("remembered");
}

#[tokio::test]
async fn a_blob_is_hashed_once_and_known_blobs_are_not_read_for_a_hash() {
    let world = world();
    world.git.put(blob(1), "old");
    world.git.put(blob(2), "new");
    let update = order(Operation::Update, Some(1), Some(2));
    let first = text_of(&world.prepare(&update).await.expect("prepared"));
    let second = text_of(&world.prepare(&update).await.expect("prepared"));
    assert_eq!(first, second);
    assert_eq!(world.git.reads(), 3, "both once, the new content again");
    assert!(first.contains(&format!(r#""previous_sha":"{}""#, Sha256Hash::of(b"old"))));
    let delete = order(Operation::Delete, Some(9), None);
    let facts = BlobFacts { sha256: Sha256Hash::of(b"gone"), size: 4, text: true };
    know(&world, 9, facts).await;
    let text = text_of(&world.prepare(&delete).await.expect("prepared"));
    assert!(text.contains(&format!(r#""sha":"{}""#, Sha256Hash::of(b"gone"))));
    assert_eq!(world.git.reads(), 3, "a delete of a known blob reads nothing");
}

#[tokio::test]
async fn hashes_are_written_in_batches() {
    let world = world();
    for number in 0..200 {
        world.git.put(blob(number), vec![number]);
        world.prepare(&order(Operation::Create, None, Some(number))).await.expect("prepared");
    }
    let (writes, known) = world.store.blobs_written();
    assert!((3..20).contains(&writes) && known >= 192, "{writes} writes of {known} blobs");
}

#[tokio::test]
async fn a_missing_blob_is_named_and_left_out_once_it_is_unobtainable() {
    let world = world();
    world.git.put(blob(2), "new");
    let mut update = order(Operation::Update, Some(1), Some(2));
    let missing = world.prepare(&update).await.expect_err("missing");
    assert!(matches!(missing, PrepareError::Git(GitError::Missing(id)) if id == blob(1)), "{missing}");
    update.unobtainable = vec![blob(1)];
    let text = text_of(&world.prepare(&update).await.expect("prepared"));
    assert!(!text.contains("previous_sha"));
    let mut create = order(Operation::Create, None, Some(3));
    let missing = world.prepare(&create).await.expect_err("missing");
    assert!(matches!(missing, PrepareError::Git(GitError::Missing(id)) if id == blob(3)), "{missing}");
    create.unobtainable = vec![blob(3)];
    let lost = world.prepare(&create).await.expect_err("lost");
    assert!(matches!(lost, PrepareError::Git(GitError::Unobtainable(id)) if id == blob(3)), "{lost}");
}

#[tokio::test]
async fn what_a_neighbour_lacks_is_not_charged_to_the_first() {
    let world = world();
    know(&world, 9, BlobFacts { sha256: Sha256Hash::of(b"gone"), size: 4, text: true }).await;
    let known = order(Operation::Delete, Some(9), None);
    let lacking = order(Operation::Create, None, Some(3));
    let window: Arc<[DeliveryOrder]> = Arc::from([known, lacking.clone()]);
    let parcels = world.webhooks.prepare(&window, u64::MAX).await.expect("the first reads nothing");
    assert_eq!(parcels.len(), 1);
    let missing = world.prepare(&lacking).await.expect_err("its own turn");
    assert!(matches!(missing, PrepareError::Git(GitError::Missing(id)) if id == blob(3)), "{missing}");
}

#[tokio::test]
async fn a_window_stops_where_its_budget_ends_and_a_heavy_first_one_asks_for_more() {
    let world = world();
    for number in 1..4 {
        world.git.put(blob(number), vec![b'x'; 100]);
    }
    let orders: Vec<_> = (1..4).map(|number| order(Operation::Create, None, Some(number))).collect();
    let window: Arc<[DeliveryOrder]> = orders.into();
    let prepare = async |budget| world.webhooks.prepare(&window, budget).await;
    assert_eq!(prepare(250).await.expect("two fit").len(), 2);
    assert_eq!(prepare(100).await.expect("one fits").len(), 1);
    assert!(matches!(prepare(99).await.expect_err("none"), PrepareError::OverBudget(100)));
}

#[tokio::test]
async fn a_content_that_grows_in_its_body_asks_for_as_much_more() {
    let world = world();
    world.git.put(blob(1), vec![1_u8; 300]);
    world.git.put(blob(2), vec![b'x'; 300]);
    let orders: Vec<_> = (1..3).map(|number| order(Operation::Create, None, Some(number))).collect();
    let window: Arc<[DeliveryOrder]> = orders.into();
    let prepare = async |budget| world.webhooks.prepare(&window, budget).await;
    let escaped = 300 * 6;
    for budget in [300, 600, escaped / 2 - 1] {
        let refused = prepare(budget).await.expect_err("its body is six times as long");
        assert!(matches!(refused, PrepareError::OverBudget(asked) if asked == escaped / 2), "{refused}");
    }
    let one = prepare(escaped / 2).await.expect("as much as it asked for");
    assert_eq!(one.len(), 1, "nothing is left for the second one");
    assert!(one[0].size() > escaped, "it is counted as it is written");
    assert_eq!(prepare((escaped + 300) / 2).await.expect("both").len(), 2);
}

#[tokio::test]
async fn large_and_unwanted_content_is_left_out_the_same_way_each_time() {
    let world = world();
    world.git.put(blob(1), vec![b'x'; 2000]);
    let large = with_view(order(Operation::Create, None, Some(1)), ContentRule::Inline, 1999);
    let first = text_of(&world.prepare(&large).await.expect("prepared"));
    assert_eq!(first, text_of(&world.prepare(&large).await.expect("prepared")));
    assert!(
        first.contains(r#""size":2000,"mode""#) && first.contains(r#""content_omitted":"too_large""#),
        "{first}"
    );
    assert!(!first.contains(r#""sha""#), "what is not read is not hashed");
    let world = self::world();
    let facts = BlobFacts { sha256: Sha256Hash::of(&[b'x'; 2000]), size: 2000, text: true };
    know(&world, 1, facts).await;
    assert_eq!(first, text_of(&world.prepare(&large).await.expect("prepared")), "nor is it shown if known");
    assert_eq!(world.git.reads(), 0, "its size was known");
    let unseen = with_view(order(Operation::Update, Some(7), Some(8)), ContentRule::None, 10);
    let text = text_of(&world.prepare(&unseen).await.expect("nothing is read"));
    assert!(
        !text.contains("\"sha\"") && !text.contains("previous_sha") && !text.contains("content"),
        "{text}"
    );
}
