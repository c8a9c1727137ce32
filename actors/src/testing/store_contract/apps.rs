//! What every store must keep of apps, their tokens and sinks, and their watches.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::{
    id::{AppId, WatchId},
    kind::{BreakerKind, HistoryMode, WatchState},
};

use super::world::{MAIN, URL, World, commit, listing, view};
use crate::{
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{
        AccessPatch, App, AppPatch, BreakerRow, ClientCertificate, DeliverySettings, EndpointAccess,
        EndpointAuth, EndpointTls, LetterFilter, NewApp, OauthClient, PERMITS_AHEAD_MAX, Reach, Rotation,
        Store, StoreError, WatchPatch,
    },
    time::Timestamp,
};

/// An app is there as it was registered; erasing it removes all of it.
pub async fn an_app_is_there_until_it_is_erased(store: &dyn Store) {
    let world = World::new(store);
    let app = world.new_app();
    store.create_app(&app).await.expect("created");
    assert!(matches!(store.create_app(&app).await, Err(StoreError::Conflict(_))));
    let found = store.app(&app.id).await.expect("read").expect("there");
    assert_eq!(found.id, app.id);
    assert_eq!(found.keys.iter().map(Secret::expose).collect::<Vec<_>>(), ["signing"]);
    assert_eq!(found.delivery, app.delivery);
    world.disable(&app.id, Some("gone")).await;
    let found = store.app(&app.id).await.expect("read").expect("there");
    assert_eq!(found.disabled.as_deref(), Some("gone"));
    let watch = world.watch(&app.id).await;
    let cursor = watch.cursors[0].id.clone();
    world.parked(&cursor, 1, &["a"]).await;
    store.erase_app(&app.id).await.expect("erased");
    assert!(store.app(&app.id).await.expect("read").is_none());
    assert!(matches!(store.lane(&cursor).await, Err(StoreError::NotFound)));
    assert!(matches!(store.glimpse(&cursor).await, Err(StoreError::NotFound)));
    assert!(matches!(store.erase_app(&app.id).await, Err(StoreError::NotFound)));
    let totals = store.totals(Timestamp(9000)).await.expect("totals");
    assert_eq!(totals, crate::ports::Totals::default());
}

/// Pages are in order, complete and without repeats.
pub async fn apps_are_listed_in_pages(store: &dyn Store) {
    let world = World::new(store);
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.app().await);
    }
    let mut seen: Vec<AppId> = Vec::new();
    loop {
        let page = store.apps(seen.last(), 2).await.expect("page");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        assert!(page.iter().all(|app| app.keys.len() == 1), "each with its key");
        seen.extend(page.into_iter().map(|app| app.id));
    }
    assert_eq!(seen, made);
}

/// No two promises of one app overlap, and a clock that went backwards silences nobody for long.
pub async fn the_time_to_send_is_promised_once(store: &dyn Store) {
    let world = World::new(store);
    let (app, other) = (world.app().await, world.app().await);
    let span = Duration::from_millis(700);
    let take = |app: &AppId, now: i64| {
        let app = app.clone();
        async move { store.take_permits(&app, Timestamp(now), span).await.map(|from| from.0) }
    };
    assert_eq!(take(&app, 100_000).await.expect("promised"), 100_000, "nobody has it yet");
    let asked = [take(&app, 100_100), take(&app, 100_100), take(&app, 100_100)];
    let mut froms: Vec<i64> =
        futures_util::future::join_all(asked).await.into_iter().map(|from| from.expect("promised")).collect();
    froms.sort_unstable();
    assert_eq!(froms, [100_700, 101_400, 102_100], "one after the other");
    assert_eq!(take(&other, 100_100).await.expect("promised"), 100_100, "each app has its own time");
    assert_eq!(take(&app, 102_799).await.expect("promised"), 102_800, "not before its end");
    assert_eq!(take(&app, 110_000).await.expect("promised"), 110_000, "what was not used is over");
    let bound = i64::try_from(PERMITS_AHEAD_MAX.as_millis()).expect("small");
    assert_eq!(take(&app, 110_700 - bound).await.expect("promised"), 110_700, "an honest promise is kept");
    let back = 111_399 - bound;
    assert_eq!(take(&app, back).await.expect("promised"), back + 700, "the clock went backwards");
    store.erase_app(&app).await.expect("erased");
    assert!(matches!(take(&app, 120_000).await, Err(StoreError::NotFound)));
}

/// An app cannot tell another app's watch from one that is not there.
pub async fn foreign_and_missing_ids_are_not_found(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let stranger = world.app().await;
    let missing = WatchId::new(world.ulid());
    for (app, id) in [(&stranger, &watch.id), (&app, &missing)] {
        assert!(matches!(store.watch(app, id).await, Err(StoreError::NotFound)));
        let patch = WatchPatch { mode: Some(HistoryMode::Every), ..WatchPatch::default() };
        assert!(matches!(store.patch_watch(app, id, &patch).await, Err(StoreError::NotFound)));
        assert!(matches!(store.request_resync(app, id, false).await, Err(StoreError::NotFound)));
        let replaced = store.replace_credential(app, id, None, &listing(&[]), Timestamp(1)).await;
        assert!(matches!(replaced, Err(StoreError::NotFound)));
        assert!(matches!(store.unwatch(app, id).await, Err(StoreError::NotFound)));
    }
    assert_eq!(store.watch(&app, &watch.id).await.expect("untouched").mode, HistoryMode::Net);
    let letters = world.parked(&cursor, 1, &["a"]).await;
    let redriven = store.request_redrive(&stranger, &[letters[0].id.clone()]).await;
    assert!(matches!(redriven, Err(StoreError::NotFound)));
    assert!(store.watches(&stranger, None, 10).await.expect("read").is_empty());
    assert!(
        store
            .dead_letters(&stranger, &LetterFilter::default(), None, 10)
            .await
            .expect("read")
            .letters
            .is_empty()
    );
    let nobody = AppId::new(world.ulid());
    assert!(matches!(store.register_watch(&world.new_watch(&nobody)).await, Err(StoreError::NotFound)));
}

/// Registering again keeps id and first address, takes the new settings, and delivers every file again.
pub async fn the_same_selector_again_replaces_settings_and_resyncs(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let paused =
        WatchPatch { state: Some((WatchState::Paused, Some("by hand".into()))), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &paused).await.expect("paused");
    let mut again = world.new_watch(&app);
    again.may_replace = false;
    let refused = store.register_watch(&again).await.expect_err("it exists");
    assert!(matches!(&refused, StoreError::Exists(id) if *id == watch.id.to_string()), "{refused}");
    let kept = store.watch(&app, &watch.id).await.expect("untouched");
    assert_eq!((kept.state, &kept.view), (WatchState::Paused, &watch.view));
    again.may_replace = true;
    again.view = view("docs/**");
    again.mode = HistoryMode::Every;
    again.credential = Some(Secret::new("token".into()));
    again.facts.github_url = "https://other.example".into();
    let replaced = store.register_watch(&again).await.expect("replaced");
    assert_eq!(replaced.id, watch.id);
    assert_eq!(replaced.facts, watch.facts);
    assert_eq!((replaced.state, replaced.reason), (WatchState::Active, None));
    assert_eq!((replaced.mode, &replaced.view), (HistoryMode::Every, &again.view));
    assert!(replaced.has_credential);
    assert_ne!(replaced.source, watch.source);
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.resync, Some(false));
    assert_eq!(lane.head, Some(commit(1)));
    assert_eq!(store.sources(&watch.repository).await.expect("sources").len(), 1, "the old source went");
    assert_eq!(store.watches(&app, None, 10).await.expect("watches").len(), 1);
}

/// A credential belongs to one app; one app's equal credentials are one source.
pub async fn two_apps_with_one_secret_share_no_source(store: &dyn Store) {
    let world = World::new(store);
    let mut sources = Vec::new();
    let first = world.app().await;
    let second = world.app().await;
    for (app, branch) in [(&first, "main"), (&first, "dev"), (&second, "main")] {
        let mut new = world.new_watch(app);
        new.selector.value = branch.into();
        new.credential = Some(Secret::new("the same".into()));
        new.listing = listing(&[(MAIN, 1), ("refs/heads/dev", 2)]);
        sources.push(store.register_watch(&new).await.expect("registered"));
    }
    assert_eq!(sources[0].source, sources[1].source);
    assert_ne!(sources[0].source, sources[2].source);
    assert_eq!(sources[0].repository, sources[2].repository);
    let all = store.repositories(&Reach::All).await.expect("repositories");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1.len(), 2);
    for source in &all[0].1 {
        let credential = source.remote.credential.as_ref().map(Secret::expose);
        assert_eq!(credential, Some("the same"));
    }
}

/// A replaced credential moves the watch to another source; its round goes on.
pub async fn a_new_credential_keeps_the_open_round(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 3).await;
    assert!(world.settle(&round, 2).await);
    let secret = Secret::new("new".into());
    let heads = listing(&[(MAIN, 7)]);
    let replaced = store
        .replace_credential(&app, &watch.id, Some(&secret), &heads, Timestamp(1))
        .await
        .expect("replaced");
    assert!(replaced.has_credential);
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open, Some(crate::model::round::Round { position: 2, ..round.clone() }));
    assert_eq!(lane.head, Some(commit(7)));
    assert_eq!(lane.remote.credential.as_ref().map(Secret::expose), Some("new"));
    assert_eq!(store.sources(&watch.repository).await.expect("sources").len(), 1);
    let back = store.replace_credential(&app, &watch.id, None, &heads, Timestamp(1)).await.expect("back");
    assert!(!back.has_credential);
    world.finish(&round).await;
}

/// Nothing of a watch outlives it, and what others use stays.
pub async fn unwatching_leaves_nothing_behind(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let other = world.app().await;
    let kept = world.watch(&other).await;
    world.parked(&cursor, 1, &["a"]).await;
    world.begin(&cursor, 2, 3).await;
    let breaker = BreakerRow {
        kind: BreakerKind::Source,
        id: watch.source.to_string(),
        failures: 5,
        opened_at: Some(Timestamp(1)),
        probe_at: Some(Timestamp(2)),
        last_error: "no answer".into(),
    };
    store.record_breaker(&breaker).await.expect("recorded");
    assert!(store.unwatch(&app, &watch.id).await.expect("unwatched"), "a round of it was open");
    assert!(matches!(store.lane(&cursor).await, Err(StoreError::NotFound)));
    let ids = [cursor.clone(), kept.cursors[0].id.clone()];
    let terms = store.lane_terms(&ids).await.expect("a look");
    assert_eq!(terms.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&ids[1]], "what is gone has none");
    assert!(
        store
            .dead_letters(&app, &LetterFilter::default(), None, 10)
            .await
            .expect("letters")
            .letters
            .is_empty()
    );
    assert!(store.pins(&watch.repository).await.expect("pins").is_empty());
    assert_eq!(
        store.sources(&watch.repository).await.expect("sources").len(),
        1,
        "another app sees through it"
    );
    assert!(world.is_pending(&kept.cursors[0].id).await);
    assert!(!store.unwatch(&other, &kept.id).await.expect("unwatched"), "no round of it was open");
    assert_eq!(store.breakers().await.expect("breakers"), [], "a breaker of a source that is gone");
    assert!(store.repositories(&Reach::All).await.expect("repositories").is_empty());
    let again = world.watch(&app).await;
    assert_eq!(again.facts.github_url, "https://Git.Example/one/two.git");
    assert_ne!(again.cursors[0].id, cursor, "a new cursor for a new watch of {URL}");
}

/// Deliveries are signed by the new key and, while the overlap lasts, by the older ones too.
pub async fn an_app_changes_itself_and_its_keys_overlap(store: &dyn Store) {
    let world = World::new(store);
    let (id, other) = (world.app().await, world.app().await);
    let missing = AppId::new(world.ulid());
    let at = Timestamp(3000);
    let rotation =
        |key: &str, until| Some(Rotation { key: Secret::new(key.into()), overlap_until: Timestamp(until) });
    let keys = |app: App| app.keys.iter().map(|key| key.expose().to_owned()).collect::<Vec<_>>();
    let id = &id;
    let change = async |patch: AppPatch| store.patch_app(id, &patch, at).await;
    let delivery = DeliverySettings { synced: true, ..DeliverySettings::default() };
    let moved = AppPatch {
        receives_at: Some(SinkAddress::Endpoint("https://new.example".into())),
        delivery: Some(delivery.clone()),
        disabled: Some(Some("by hand".into())),
        ..AppPatch::default()
    };
    let app = change(moved).await.expect("changed");
    assert_eq!((app.receives_at.base_url(), &app.delivery), (Some("https://new.example"), &delivery));
    assert_eq!(app.disabled.as_deref(), Some("by hand"));
    let pulling = AppPatch { receives_at: Some(SinkAddress::Pull), ..AppPatch::default() };
    assert_eq!(change(pulling).await.expect("changed").receives_at, SinkAddress::Pull);
    let served = change(AppPatch { disabled: Some(None), ..AppPatch::default() }).await.expect("changed");
    assert_eq!((served.disabled, served.receives_at), (None, SinkAddress::Pull), "what is not named stays");

    let far = 1_000_000_000_000_000;
    let first = AppPatch { rotation: rotation("second", far), ..AppPatch::default() };
    assert_eq!(keys(change(first).await.expect("rotated")), ["second", "signing"]);
    let read = store.app(id).await.expect("read").expect("there");
    assert_eq!(keys(read), ["second", "signing"], "the current one first");
    let at_once = AppPatch { rotation: rotation("third", at.0), ..AppPatch::default() };
    assert_eq!(keys(change(at_once).await.expect("rotated")), ["third"], "no overlap");
    for key in ["fourth", "fifth", "sixth"] {
        change(AppPatch { rotation: rotation(key, far), ..AppPatch::default() }).await.expect("rotated");
    }
    let again = change(AppPatch { rotation: rotation("seventh", far), ..AppPatch::default() }).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "one signature more each");
    let read = store.app(id).await.expect("read").expect("there");
    assert_eq!(keys(read), ["sixth", "fifth", "fourth", "third"]);
    let untouched = store.app(&other).await.expect("read").expect("there");
    assert_eq!(keys(untouched), ["signing"]);
    let nobody = store.patch_app(&missing, &AppPatch::default(), at).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)));
}

/// Header fields, credentials and TLS come back as they were given; what a change does not name stays,
/// and a change that cannot be changes nothing.
pub async fn what_goes_with_requests_is_kept_and_changed_part_by_part(store: &dyn Store) {
    let world = World::new(store);
    let secret = |text: &str| Secret::new(text.to_owned());
    let field = |name: &str, value: Option<&str>| (name.to_owned(), value.map(secret));
    let oauth = |secret_text: &str| {
        EndpointAuth::Oauth2(OauthClient {
            token_url: "https://tokens.example/t".into(),
            client_id: "client".into(),
            client_secret: secret(secret_text),
            scope: Some("push".into()),
            audience: None,
        })
    };
    let tls = EndpointTls {
        client: Some(ClientCertificate { chain: "the chain".into(), key: secret("the key") }),
        ca: Some("the authority".into()),
    };
    let given = EndpointAccess {
        headers: BTreeMap::from([("x-key".to_owned(), secret("value"))]),
        auth: Some(EndpointAuth::Basic { username: "user".into(), password: secret("password") }),
        tls: Some(tls.clone()),
    };
    let new = NewApp { access: given.clone(), ..world.new_app() };
    store.create_app(&new).await.expect("an app");
    let (id, other) = (&new.id, world.app().await);
    let read = async |id: &AppId| store.app(id).await.expect("read").expect("there").access;
    assert!(read(id).await.is_like(&given), "as it was given");
    assert!(read(&other).await.is_empty(), "another app has its own");
    let listed = store.apps(None, 10).await.expect("listed");
    assert!(listed.iter().any(|app| app.id == *id && app.access.is_like(&given)));

    let change = async |access: AccessPatch| {
        store.patch_app(id, &AppPatch { access, ..AppPatch::default() }, Timestamp(3000)).await
    };
    let auth = AccessPatch { auth: Some(Some(oauth("one"))), ..AccessPatch::default() };
    let wanted = EndpointAccess { auth: Some(oauth("one")), ..given.clone() };
    assert!(change(auth).await.expect("changed").access.is_like(&wanted), "the rest stays");
    let headers = BTreeMap::from([field("x-key", None), field("x-new", Some("other"))]);
    let headers = AccessPatch { headers, tls: Some(None), ..AccessPatch::default() };
    let headers = change(headers).await.expect("changed").access;
    let wanted = EndpointAccess {
        headers: BTreeMap::from([("x-new".to_owned(), secret("other"))]),
        auth: Some(oauth("one")),
        tls: None,
    };
    assert!(headers.is_like(&wanted) && read(id).await.is_like(&wanted));
    let untouched = AppPatch { disabled: Some(Some("by hand".into())), ..AppPatch::default() };
    store.patch_app(id, &untouched, Timestamp(3000)).await.expect("changed");
    assert!(read(id).await.is_like(&wanted), "a change of something else");

    let both = BTreeMap::from([field("authorization", Some("x"))]);
    let refused = change(AccessPatch { headers: both, ..AccessPatch::default() }).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert!(read(id).await.is_like(&wanted));
    let bare = AccessPatch { clears_headers: true, auth: Some(None), ..AccessPatch::default() };
    assert!(change(bare).await.expect("changed").access.is_empty());
    assert!(read(id).await.is_empty());
}
