//! What every store must keep of receipts of hooks.

use std::time::Duration;

use tidings_entity::{
    id::ReceiptId,
    kind::{HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};

use super::world::{URL, World};
use crate::{
    ports::{Hook, NOTED_RECEIPTS_MAX, Reach, Receipt, Store, StoreError},
    time::Timestamp,
};

const DAY: Duration = Duration::from_secs(86_400);

fn push(delivery: &str, ref_name: &str, at: i64) -> Hook {
    Hook {
        owner: None,
        provider: HookProvider::Github,
        delivery: Some(delivery.to_owned()),
        event: "push".into(),
        news: HookNews::Push,
        ref_name: Some(ref_name.to_owned()),
        addresses: vec!["http://git.example/one/two".into(), URL.into()],
        received_at: Timestamp(at),
    }
}

fn refused(world: &World<'_>, delivery: &str) -> Receipt {
    Receipt {
        id: ReceiptId::new(world.ulid()),
        hook: push(delivery, "refs/heads/main", 1000),
        verdict: ReceiptVerdict::Refused,
        reason: ReceiptReason::WrongSignature,
        repositories: Vec::new(),
        times: 7,
        replayed_at: None,
        body: None,
    }
}

/// A hook names a repository by any of its addresses; the same delivery is taken in once, that of
/// another provider and one without an id are others.
pub async fn a_hook_is_taken_in_once(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, _) = world.watched().await;
    let hook = push("1", "refs/heads/main", 5000);
    let receipt = store.receive(&hook, None).await.expect("received");
    assert_eq!((receipt.verdict, receipt.reason), (ReceiptVerdict::Accepted, ReceiptReason::RefMoved));
    assert_eq!((&receipt.hook, &receipt.repositories), (&hook, &vec![watch.repository.clone()]));
    let again = store.receive(&push("1", "refs/heads/main", 6000), None).await.expect("received");
    assert_eq!((again.verdict, again.reason), (ReceiptVerdict::Duplicate, ReceiptReason::SeenBefore));
    assert!(again.repositories.is_empty(), "it pokes nobody");
    let elsewhere = Hook { provider: HookProvider::Gitea, ..push("1", "refs/heads/main", 7000) };
    let nameless = Hook { delivery: None, ..push("1", "refs/heads/main", 8000) };
    for hook in [&elsewhere, &nameless, &Hook { received_at: Timestamp(9000), ..nameless.clone() }] {
        assert_eq!(store.receive(hook, None).await.expect("received").verdict, ReceiptVerdict::Accepted);
    }
    let listed = store.receipts(None, None, 10).await.expect("listed");
    assert_eq!(listed.len(), 4, "a duplicate is not written");
    assert_eq!(listed[3], receipt);
    assert_eq!(listed[0].hook.delivery, None);
    let both =
        futures_util::future::join_all([store.receive(&nameless, None), store.receive(&nameless, None)])
            .await;
    assert!(both.iter().all(Result::is_ok));
    let (one, two) = (push("race", "x", 1), push("race", "x", 1));
    let race = futures_util::future::join_all([store.receive(&one, None), store.receive(&two, None)]).await;
    let duplicates = race
        .iter()
        .filter(|found| matches!(found, Ok(receipt) if receipt.verdict == ReceiptVerdict::Duplicate));
    assert_eq!(duplicates.count(), 1);
}

/// Refs and repositories that nobody watches are ignored, with a reason; news of any ref shows that
/// hooks arrive.
pub async fn a_hook_is_judged_by_what_is_watched(store: &dyn Store) {
    let world = World::new(store);
    let receive = async |hook: Hook| store.receive(&hook, None).await.expect("received").reason;
    let lost = receive(push("1", "refs/heads/main", 4000)).await;
    assert_eq!(lost, ReceiptReason::UnknownRepository, "nobody watches it yet");
    let (_, watch, _) = world.watched().await;
    let hooked_at = async || store.sources(&watch.repository).await.expect("sources")[0].hooked_at;
    assert_eq!(hooked_at().await, None);
    assert_eq!(receive(Hook { news: HookNews::Ping, ..push("2", "", 5000) }).await, ReceiptReason::Ping);
    let renamed = Hook { news: HookNews::Repository, ref_name: None, ..push("3", "", 5000) };
    assert_eq!(receive(renamed).await, ReceiptReason::RepositoryChanged);
    assert_eq!(hooked_at().await, None);
    assert_eq!(receive(push("4", "refs/heads/other", 6000)).await, ReceiptReason::OtherRef);
    assert_eq!(hooked_at().await, Some(Timestamp(6000)));
    let gone = Hook { news: HookNews::Deletion, ..push("5", "refs/heads/main", 5500) };
    assert_eq!(receive(gone).await, ReceiptReason::RefDeleted);
    assert_eq!(hooked_at().await, Some(Timestamp(6000)), "a late one does not turn it back");
    let nowhere = Hook { addresses: vec!["https://git.example/one/twofold".into()], ..push("6", "x", 7000) };
    assert_eq!(receive(nowhere).await, ReceiptReason::UnknownRepository);
    let unnamed = Hook { addresses: vec![], ..push("7", "x", 7000) };
    assert_eq!(receive(unnamed).await, ReceiptReason::UnknownRepository);
    assert_eq!(hooked_at().await, Some(Timestamp(6000)));
    assert_eq!(store.repositories(&Reach::All).await.expect("bulk")[0].1[0].hooked_at, Some(Timestamp(6000)));
}

/// A replay judges the body again; a hook that was never proved is not replayed.
pub async fn a_replayed_hook_is_judged_anew(store: &dyn Store) {
    let world = World::new(store);
    let lost = store.receive(&push("1", "refs/heads/main", 4000), None).await.expect("received");
    assert_eq!(lost.verdict, ReceiptVerdict::Ignored);
    let (_, watch, _) = world.watched().await;
    let replayed = store.replay(&lost.id, None, Timestamp(9000)).await.expect("replayed");
    assert_eq!((replayed.verdict, replayed.replayed_at), (ReceiptVerdict::Accepted, Some(Timestamp(9000))));
    assert_eq!(replayed.repositories, [watch.repository]);
    assert_eq!(store.receipts(None, None, 10).await.expect("listed"), [replayed]);
    store.note_receipt(&refused(&world, "2"), None).await.expect("noted");
    let refused = &store.receipts(Some(ReceiptVerdict::Refused), None, 1).await.expect("listed")[0];
    assert!(matches!(store.replay(&refused.id, None, Timestamp(1)).await, Err(StoreError::Conflict(_))));
    let nobodys = ReceiptId::new(world.ulid());
    assert!(matches!(store.replay(&nobodys, None, Timestamp(1)).await, Err(StoreError::NotFound)));
}

/// Receipts are listed in the order of arrival, also those of one millisecond, and when the clock was
/// set back.
pub async fn receipts_are_listed_in_the_order_of_arrival(store: &dyn Store) {
    let world = World::new(store);
    let mut arrived = Vec::new();
    for (number, at) in [9_000; 30].into_iter().chain([8_000; 3]).enumerate() {
        let delivery = number.to_string();
        if number % 3 == 2 {
            store.note_receipt(&refused(&world, &delivery), None).await.expect("noted");
        } else {
            let received =
                store.receive(&push(&delivery, "refs/heads/main", at), None).await.expect("received");
            let newest = &store.receipts(None, None, 1).await.expect("listed")[0];
            assert_eq!(newest.id, received.id, "what is answered names what is written");
        }
        arrived.push(delivery);
    }
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = store.receipts(None, before.as_ref(), 7).await.expect("listed");
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        listed.extend(page.into_iter().filter_map(|receipt| receipt.hook.delivery));
    }
    listed.reverse();
    assert_eq!(listed, arrived);
}

/// Refused hooks take nobody's place: not the delivery id they claim, and not a genuine receipt's.
pub async fn refused_hooks_are_bounded_and_take_nobodys_place(store: &dyn Store) {
    let world = World::new(store);
    world.watched().await;
    store.note_receipt(&refused(&world, "1"), None).await.expect("noted");
    store.note_receipt(&refused(&world, "1"), None).await.expect("noted twice");
    let genuine = store.receive(&push("1", "refs/heads/main", 5000), None).await.expect("received");
    assert_eq!(genuine.verdict, ReceiptVerdict::Accepted, "a forged delivery id blocks no genuine one");
    let listed = store.receipts(Some(ReceiptVerdict::Refused), None, 10).await.expect("listed");
    assert_eq!((listed.len(), listed[0].times), (2, 7));
    let notes = (0..NOTED_RECEIPTS_MAX + 20).map(|number| refused(&world, &number.to_string()));
    for some in notes.collect::<Vec<_>>().chunks(200) {
        let noted =
            futures_util::future::join_all(some.iter().map(|note| store.note_receipt(note, None))).await;
        assert!(noted.into_iter().all(|noted| noted.is_ok()));
    }
    let (mut count, mut before) = (0, None);
    loop {
        let page = store.receipts(Some(ReceiptVerdict::Refused), before.as_ref(), 300).await.expect("listed");
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        count += i64::try_from(page.len()).expect("small");
    }
    assert_eq!(count, NOTED_RECEIPTS_MAX);
    let kept = store.receipts(Some(ReceiptVerdict::Accepted), None, 10).await.expect("listed");
    assert_eq!(kept, [genuine]);
}

/// Receipts older than the retention are pruned.
pub async fn old_receipts_go(store: &dyn Store) {
    let world = World::new(store);
    store.receive(&push("old", "x", 1000), None).await.expect("received");
    store.note_receipt(&refused(&world, "old"), None).await.expect("noted");
    let now = Timestamp(1000).after(31 * DAY);
    store.receive(&push("new", "x", now.0), None).await.expect("received");
    assert_eq!(store.prune(Timestamp(1000).after(29 * DAY), 30 * DAY, DAY, 10).await.expect("pruned"), 0);
    assert_eq!(store.prune(now, 30 * DAY, DAY, 10).await.expect("pruned"), 2);
    let left = store.receipts(None, None, 10).await.expect("listed");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].hook.delivery.as_deref(), Some("new"));
}
