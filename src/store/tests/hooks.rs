//! Hooks of apps as rows, and the rings of their receipts and of all bodies.

use std::time::Duration;

use sea_orm::DatabaseConnection;
use tidings_actors::{
    model::secret::Secret,
    ports::{
        APP_RECEIPTS_MAX, AppHooks, AppStore, BodyNote, Hook, HookName, HookOwner, KeptRequest, NewHook,
        Receipt, ReceiptFilter, ReceiptStore, RequestToKeep, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, HookId},
    kind::{BodyFate, HookNews, HookProvider, ReceiptVerdict},
};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

const NOW: Timestamp = Timestamp(5_000);
const RING: u64 = 100_000;

fn id(number: u128) -> HookId {
    HookId::new(Ulid::from_parts(2, number))
}

fn app(number: u128) -> AppId {
    new_app(number).id
}

/// A store with two apps, each with a hook of its number.
async fn scene(home: &Home) -> SqlStore {
    let store = home.open(1).await.expect("opened");
    for number in 1..=2 {
        store.create_app(&new_app(number)).await.expect("created");
        let new = NewHook {
            id: id(number),
            app: app(number),
            name: "ci".into(),
            provider: HookProvider::Github,
            watch: None,
            secret: Secret::new(format!("the first secret of {number}")),
            created_at: NOW,
        };
        store.create_hook(&new).await.expect("made");
    }
    store
}

fn owner(number: u128) -> Option<HookOwner> {
    Some(HookOwner { hook: id(number), app: app(number) })
}

fn sent(owner: Option<HookOwner>, delivery: &str) -> Hook {
    Hook {
        owner,
        provider: HookProvider::Github,
        delivery: Some(delivery.to_owned()),
        event: "push".into(),
        news: HookNews::Push,
        ref_name: Some("refs/heads/main".into()),
        addresses: vec!["https://git.example/o/r".into()],
        received_at: NOW,
    }
}

fn kept(size: usize, ring_bytes: u64) -> RequestToKeep {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    RequestToKeep {
        note: BodyNote { fate: BodyFate::Kept, size_bytes: size as u64 },
        request: Some(KeptRequest { headers, body: format!("first line\n{}", "x".repeat(size - 11)) }),
        ring_bytes,
    }
}

async fn all(store: &SqlStore) -> Vec<Receipt> {
    store.receipts(None, None, 10_000).await.expect("listed")
}

async fn bytes(raw: &DatabaseConnection, of: &str) -> i64 {
    let text =
        format!("select cast(coalesce(sum(length(sealed)), 0) as bigint) from receipt_body where {of}");
    number(raw, &text).await
}

async fn bodies_stay_within_the_ring_and_an_app_within_its_part(home: Home) {
    let (store, raw) = (scene(&home).await, home.raw().await);
    // A size that does not divide the ring.
    for turn in 0..60 {
        let delivery = turn.to_string();
        for owner in [None, owner(1)] {
            store.receive(&sent(owner, &delivery), Some(&kept(7_001, RING))).await.expect("received");
            let (together, part) = (bytes(&raw, "1 = 1").await, bytes(&raw, "app_id is not null").await);
            assert!(together <= 100_000 && part <= 25_000, "{together} bytes, {part} of them of the app");
        }
    }
    let receipts = all(&store).await;
    assert_eq!(receipts.len(), 120, "the rows stay");
    let fates = |is_own: bool| -> Vec<BodyFate> {
        let those = receipts.iter().filter(|receipt| receipt.hook.owner.is_some() == is_own);
        those.map(|receipt| receipt.body.expect("a note").fate).collect()
    };
    for (is_own, least) in [(true, 3), (false, 7)] {
        let fates = fates(is_own);
        let kept = fates.iter().take_while(|fate| **fate == BodyFate::Kept).count();
        assert!(kept >= least, "{kept} are kept");
        assert!(fates[kept..].iter().all(|fate| *fate == BodyFate::Dropped), "the oldest go first");
    }
    let newest = store.kept_request(&receipts[0].id).await.expect("read").expect("kept");
    assert_eq!(newest.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    assert!(newest.body.starts_with("first line\nxxx") && newest.body.len() == 7_001);
    assert!(store.kept_request(&receipts[119].id).await.expect("read").is_none());

    // Made smaller, the ring is obeyed with the next hook, also one without a body.
    let large = RequestToKeep {
        note: BodyNote { fate: BodyFate::TooLarge, size_bytes: 1 << 20 },
        request: None,
        ring_bytes: 20_000,
    };
    store.receive(&sent(None, "large"), Some(&large)).await.expect("received");
    let left = bytes(&raw, "1 = 1").await;
    assert!((1..=20_000).contains(&left), "{left} bytes");
    let off = RequestToKeep { ring_bytes: 0, ..large };
    store.receive(&sent(None, "off"), Some(&off)).await.expect("received");
    assert_eq!(bytes(&raw, "1 = 1").await, 0);
}

async fn a_flood_of_an_app_pushes_out_its_own_receipts_alone(home: Home) {
    let store = scene(&home).await;
    let first = store.receive(&sent(None, "0"), None).await.expect("received");
    let other = store.receive(&sent(owner(2), "0"), None).await.expect("received");
    assert_eq!(other.verdict, ReceiptVerdict::Ignored, "the same delivery id at another hook is another one");
    for turn in 0..APP_RECEIPTS_MAX + 5 {
        store.receive(&sent(owner(1), &turn.to_string()), None).await.expect("received");
    }
    let again = store.receive(&sent(owner(1), "1000"), None).await.expect("received");
    assert_eq!(again.verdict, ReceiptVerdict::Duplicate);
    let receipts = all(&store).await;
    let count = |number: u128| receipts.iter().filter(|one| one.hook.owner == owner(number)).count();
    assert_eq!((i64::try_from(count(1)), count(2)), (Ok(APP_RECEIPTS_MAX), 1));
    assert!(receipts.iter().any(|one| one.id == first.id), "that of the server's own address stays");
    let listed = store.receipts_of(&app(2), &ReceiptFilter::default(), None, 10).await.expect("listed");
    assert_eq!(listed, std::slice::from_ref(&other));
    let foreign = store.receipt(Some(&app(1)), &other.id).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
}

async fn secrets_overlap_until_their_moment_and_open_at_their_own_address_alone(home: Home) {
    let store = scene(&home).await;
    let known = async |number: u128, provider: HookProvider, now: Timestamp| {
        let found = store.hook_secrets(&id(number), provider, now).await.expect("read");
        found.map(|found| found.secrets.iter().map(|one| one.expose().to_owned()).collect::<Vec<_>>())
    };
    let first = vec!["the first secret of 1".to_owned()];
    assert_eq!(known(1, HookProvider::Github, NOW).await, Some(first.clone()));
    assert_eq!(known(1, HookProvider::Gitlab, NOW).await, None);
    assert_eq!(known(9, HookProvider::Github, NOW).await, None);
    let until = NOW.after(Duration::from_secs(10));
    let second = Secret::new("the second secret".into());
    let foreign = store.rotate_hook(&app(2), &id(1), &second, until).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
    store.rotate_hook(&app(1), &id(1), &second, until).await.expect("rotated");
    let both = vec!["the second secret".to_owned(), first[0].clone()];
    assert_eq!(known(1, HookProvider::Github, NOW).await, Some(both));
    assert_eq!(known(1, HookProvider::Github, until).await, Some(vec!["the second secret".to_owned()]));
}

async fn what_belongs_to_a_hook_goes_with_it_and_with_its_app(home: Home) {
    let store = scene(&home).await;
    for number in 1..=2 {
        store.receive(&sent(owner(number), "1"), Some(&kept(900, RING))).await.expect("received");
    }
    store.receive(&sent(None, "1"), Some(&kept(900, RING))).await.expect("received");
    let shown = store.hook(&app(1), &HookName::Name("ci".into())).await.expect("found");
    assert!(shown.last.is_some_and(|last| last.verdict == ReceiptVerdict::Ignored));
    let foreign = store.remove_hook(&app(2), &id(1)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
    store.remove_hook(&app(1), &id(1)).await.expect("removed");
    let late = store.receive(&sent(owner(1), "2"), Some(&kept(900, RING))).await;
    assert!(matches!(late, Err(StoreError::NotFound)), "it was removed while its body came: {late:?}");
    store.erase_app(&app(2)).await.expect("erased");
    let left = all(&store).await;
    assert_eq!((left.len(), &left[0].hook.owner), (1, &None));
    let raw = home.raw().await;
    let bodies = number(&raw, "select count(*) from receipt_body").await;
    assert_eq!((bodies, number(&raw, "select count(*) from hook").await), (1, 0));
}

on_both! {
    bodies_stay_within_the_ring_and_an_app_within_its_part
    a_flood_of_an_app_pushes_out_its_own_receipts_alone
    secrets_overlap_until_their_moment_and_open_at_their_own_address_alone
    what_belongs_to_a_hook_goes_with_it_and_with_its_app
}
