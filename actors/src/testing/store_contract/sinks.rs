//! Sinks that watches have for themselves, and watches of the same refs under aliases.

use std::collections::BTreeMap;

use tidings_entity::{
    id::SinkId,
    kind::{BreakerKind, WatchState},
};

use super::world::World;
use crate::{
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{
        BreakerRow, DeliverySettings, EndpointAccess, GONE, NewSink, NewWatch, Reach, SinkKey, Store,
        StoreError, WatchPatch,
    },
    time::Timestamp,
};

fn sink(world: &World<'_>, address: SinkAddress) -> NewSink {
    let secret = Secret::new("a secret".into());
    NewSink {
        id: SinkId::new(world.ulid()),
        address,
        access: EndpointAccess {
            headers: BTreeMap::from([("x-key".to_owned(), secret)]),
            ..EndpointAccess::default()
        },
        delivery: DeliverySettings { max_in_flight: 3, rate: Some(1), ..DeliverySettings::default() },
        signing_key: Some(Secret::new("the first key".into())),
    }
}

fn endpoint(address: &str) -> SinkAddress {
    SinkAddress::Endpoint(address.into())
}

/// The alias is a part of the key of a watch.
pub async fn another_alias_is_another_watch_of_the_same_refs(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let first = world.watch(&app).await;
    let named = |alias: &str| NewWatch { alias: alias.into(), ..world.new_watch(&app) };
    let second = store.register_watch(&named("deploy")).await.expect("a second one");
    assert!(first.id != second.id && first.repository == second.repository && first.source == second.source);
    assert_eq!((first.alias.as_str(), second.alias.as_str()), ("", "deploy"));
    let again = store.register_watch(&named("deploy")).await.expect("the same");
    assert_eq!(again.id, second.id);
    assert_eq!(world.watch(&app).await.id, first.id, "a body without an alias means the one without");
    assert_eq!(store.watches(&app, None, 9).await.expect("a list").len(), 2);

    let to = |alias: &str| WatchPatch { alias: Some(alias.into()), ..WatchPatch::default() };
    for (id, taken) in [(&first.id, "deploy"), (&second.id, "")] {
        let refused = store.patch_watch(&app, id, &to(taken)).await.expect_err("the other one has the name");
        assert!(matches!(refused, StoreError::Exists(_)), "{refused}");
    }
    let kept = store.patch_watch(&app, &second.id, &to("deploy")).await.expect("its own name");
    assert_eq!(kept.alias, "deploy");
    let renamed = store.patch_watch(&app, &second.id, &to("docs")).await.expect("a free name");
    assert_eq!((renamed.alias.as_str(), &renamed.id), ("docs", &second.id));
    let named = store.register_watch(&named("docs")).await.expect("the same");
    assert_eq!(named.id, second.id, "the new name is its key");
    let free = store.patch_watch(&app, &first.id, &to("deploy")).await.expect("the former name is free");
    assert_eq!(free.alias, "deploy");
}

/// A sink of a watch has keys, access and settings of its own; what bounds the app bounds the sink.
pub async fn a_watch_has_its_own_sink_until_it_goes_back_or_ends(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let new = NewWatch { sink: Some(sink(&world, endpoint("https://one.example"))), ..world.new_watch(&app) };
    let watch = store.register_watch(&new).await.expect("registered");
    let cursor = watch.cursors[0].id.clone();
    let shown = watch.sink.clone().expect("its own sink");
    assert!(shown.has_access && shown.address == endpoint("https://one.example"));
    let key = watch.sink_key();
    assert_eq!(key, SinkKey { app: app.clone(), sink: Some(shown.id.clone()) });
    assert_eq!(
        store.pending(Some(&app), &Reach::All).await.expect("pending"),
        [(key.clone(), cursor.clone())]
    );
    assert_eq!(world.lane(&cursor).await.sink, Some(shown.id.clone()));
    let served = store.served(&key).await.expect("read").expect("served");
    assert_eq!(served.keys[0].expose(), "the first key");
    assert_eq!(served.access.headers["x-key"].expose(), "a secret");
    assert_eq!(
        (served.delivery.max_in_flight, served.delivery.rate),
        (3, None),
        "the rate is that of the app"
    );
    let own = store.served(&SinkKey::own(&app)).await.expect("read").expect("served");
    assert_ne!(own.keys[0].expose(), "the first key", "the app signs with its own");

    let moved = NewSink {
        signing_key: Some(Secret::new("another key".into())),
        ..sink(&world, endpoint("https://two.example"))
    };
    let patch = WatchPatch { sink: Some(Some(moved)), ..WatchPatch::default() };
    let patched = store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    assert_eq!(patched.sink_key(), key, "the sink keeps its id");
    let after = store.served(&key).await.expect("read").expect("served");
    assert_eq!(after.keys[0].expose(), "the first key", "and its key");
    assert!(
        after.endpoint_since > served.endpoint_since,
        "answers of the address before say nothing of this one"
    );

    let breaker = BreakerRow {
        kind: BreakerKind::Endpoint,
        id: key.id().to_owned(),
        failures: 5,
        opened_at: Some(Timestamp(1)),
        probe_at: None,
        last_error: "why".into(),
    };
    store.record_breaker(&breaker).await.expect("written");
    let back = WatchPatch { sink: Some(None), ..WatchPatch::default() };
    let back = store.patch_watch(&app, &watch.id, &back).await.expect("patched");
    assert_eq!(back.sink_key(), SinkKey::own(&app));
    assert!(store.served(&key).await.expect("read").is_none(), "nobody has that sink any more");
    assert_eq!(world.lane(&cursor).await.sink, None);
    let foreign = store.sink(&world.app().await, &shown.id).await.expect("read");
    assert!(foreign.is_none());
}

/// 410 disables the sink that answered, and no other.
pub async fn a_sink_that_is_gone_stops_nobody_else(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let plain = world.watch(&app).await;
    let with = NewWatch {
        alias: "own".into(),
        sink: Some(sink(&world, endpoint("https://one.example"))),
        ..world.new_watch(&app)
    };
    let with = store.register_watch(&with).await.expect("registered");
    let pending = async || {
        let pending = store.pending(Some(&app), &Reach::All).await.expect("pending");
        pending.into_iter().map(|(_, cursor)| cursor).collect::<Vec<_>>()
    };
    let both = [plain.cursors[0].id.clone(), with.cursors[0].id.clone()];
    assert_eq!(pending().await.len(), 2);
    let key = with.sink_key();
    let since = store.served(&key).await.expect("read").expect("served").endpoint_since;
    assert!(!store.disable_gone(&key, Timestamp(since.0 - 1)).await.expect("asked"), "another address");
    assert!(store.disable_gone(&key, since).await.expect("disabled"));
    assert_eq!(pending().await, both[..1], "the own sink of the app goes on");
    let shown = store.watch(&app, &with.id).await.expect("a watch").sink.expect("its sink");
    assert_eq!(shown.disabled.as_deref(), Some(GONE));

    let resumed = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
    let shown = store.patch_watch(&app, &with.id, &resumed).await.expect("resumed").sink.expect("its sink");
    assert_eq!(shown.disabled, None, "who resumes the watch enables its sink");
    assert_eq!(pending().await.len(), 2);
    let after = store.served(&key).await.expect("read").expect("served").endpoint_since;
    assert!(after > since, "an answer from before the resume does not disable it again");
    assert!(store.disable_gone(&key, after).await.expect("disabled"));
    let again = WatchPatch {
        sink: Some(Some(sink(&world, endpoint("https://one.example")))),
        ..WatchPatch::default()
    };
    store.patch_watch(&app, &with.id, &again).await.expect("named again");
    let own = SinkKey::own(&app);
    let since = store.served(&own).await.expect("read").expect("served").endpoint_since;
    assert!(store.disable_gone(&own, since).await.expect("disabled"));
    assert_eq!(pending().await, both[1..], "the other sink goes on");
    world.disable(&app, Some("by hand")).await;
    assert!(pending().await.is_empty(), "an app that is disabled by hand is served nowhere");
    assert!(!store.disable_gone(&own, since).await.expect("asked"), "a person disabled the app before");
    assert!(pending().await.is_empty(), "an answer to an earlier attempt lets no other sink go on");
    store.unwatch(&app, &with.id).await.expect("unwatched");
    assert!(matches!(
        store.sink(&app, &key.sink.expect("a sink")).await,
        Ok(None) | Err(StoreError::NotFound)
    ));
}
