//! Preparing deliveries: what is read, hashed, remembered and left out.

use tidings_actors::ports::{BlobFacts, GitError, PrepareError, Transport};
use tidings_entity::{
    id::Sha256Hash,
    kind::{ContentRule, Operation},
};

use crate::support::sender::{blob, order, text_of, with_view, world};

#[tokio::test]
async fn a_blob_is_hashed_once_and_known_blobs_are_not_read_for_a_hash() {
    let world = world();
    world.git.put(blob(1), "old");
    world.git.put(blob(2), "new");
    let update = order(Operation::Update, Some(1), Some(2));
    let first = text_of(&world.webhooks.prepare(&update).await.expect("prepared"));
    let second = text_of(&world.webhooks.prepare(&update).await.expect("prepared"));
    assert_eq!(first, second);
    assert_eq!(world.git.reads(), 3, "both once, the new content again");
    assert!(first.contains(&format!(r#""previous_sha":"{}""#, Sha256Hash::of(b"old"))));
    let delete = order(Operation::Delete, Some(9), None);
    let facts = BlobFacts { sha256: Sha256Hash::of(b"gone"), size: 4, text: true };
    world.store.know(blob(9), facts);
    let text = text_of(&world.webhooks.prepare(&delete).await.expect("prepared"));
    assert!(text.contains(&format!(r#""sha":"{}""#, Sha256Hash::of(b"gone"))));
    assert_eq!(world.git.reads(), 3, "a delete of a known blob reads nothing");
}

#[tokio::test]
async fn hashes_are_written_in_batches() {
    let world = world();
    for number in 0..200 {
        world.git.put(blob(number), vec![number]);
        world.webhooks.prepare(&order(Operation::Create, None, Some(number))).await.expect("prepared");
    }
    let (writes, known) = world.store.written();
    assert!((3..20).contains(&writes) && known >= 192, "{writes} writes of {known} blobs");
}

#[tokio::test]
async fn a_missing_blob_is_named_and_left_out_once_it_is_unobtainable() {
    let world = world();
    world.git.put(blob(2), "new");
    let mut update = order(Operation::Update, Some(1), Some(2));
    let missing = world.webhooks.prepare(&update).await.expect_err("missing");
    assert!(matches!(missing, PrepareError::Git(GitError::Missing(id)) if id == blob(1)), "{missing}");
    update.unobtainable = vec![blob(1)];
    let text = text_of(&world.webhooks.prepare(&update).await.expect("prepared"));
    assert!(!text.contains("previous_sha"));
    let mut create = order(Operation::Create, None, Some(3));
    let missing = world.webhooks.prepare(&create).await.expect_err("missing");
    assert!(matches!(missing, PrepareError::Git(GitError::Missing(id)) if id == blob(3)), "{missing}");
    create.unobtainable = vec![blob(3)];
    let lost = world.webhooks.prepare(&create).await.expect_err("lost");
    assert!(matches!(lost, PrepareError::Git(GitError::Unobtainable(id)) if id == blob(3)), "{lost}");
}

#[tokio::test]
async fn large_and_unwanted_content_is_left_out_the_same_way_each_time() {
    let world = world();
    world.git.put(blob(1), vec![b'x'; 2000]);
    let large = with_view(order(Operation::Create, None, Some(1)), ContentRule::Inline, 1999);
    let first = text_of(&world.webhooks.prepare(&large).await.expect("prepared"));
    assert_eq!(first, text_of(&world.webhooks.prepare(&large).await.expect("prepared")));
    assert!(
        first.contains(r#""size":2000,"mode""#) && first.contains(r#""content_omitted":"too_large""#),
        "{first}"
    );
    assert!(!first.contains(r#""sha""#), "what is not read is not hashed");
    let world = self::world();
    let facts = BlobFacts { sha256: Sha256Hash::of(&[b'x'; 2000]), size: 2000, text: true };
    world.store.know(blob(1), facts);
    assert_eq!(
        first,
        text_of(&world.webhooks.prepare(&large).await.expect("prepared")),
        "nor is it shown if known"
    );
    assert_eq!(world.git.reads(), 0, "its size was known");
    let unseen = with_view(order(Operation::Update, Some(7), Some(8)), ContentRule::None, 10);
    let text = text_of(&world.webhooks.prepare(&unseen).await.expect("nothing is read"));
    assert!(
        !text.contains("\"sha\"") && !text.contains("previous_sha") && !text.contains("content"),
        "{text}"
    );
}
