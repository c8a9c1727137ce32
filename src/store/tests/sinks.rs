//! Sinks of watches in rows, and the step of the schema that brings them: what the version before wrote goes on
//! under its ids, and the way back is closed while something needs the new columns.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use tidings_actors::{
    model::round::RULES,
    model::sink::SinkAddress,
    ports::{
        AppPatch, AppStore, DeliverySettings, EndpointAccess, LaneStore, NewApp, NewSink, Reach, SinkKey,
        WatchPatch, WatchStore,
    },
    time::Timestamp,
};
use tidings_entity::{id::SinkId, kind::PayloadFormat};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    new_app, number, watch,
};
use crate::database::schema;

/// What must be the same on both sides of the step.
const KEPT: [&str; 6] = [
    "select id || app_id || repository_id || source_id || view_id || state || cast(created_at as text) from watch",
    "select id || watch_id || branch || cast(open_round as text) from cursor",
    "select cursor_id || cast(number as text) || '/' || cast(position as text) || '/' || cast(total as text) || format
     from round",
    "select cursor_id || cast(from_position as text) || '-' || cast(to_position as text) from settled",
    "select id || cursor_id || delivery_id || status from dead_letter",
    "select kind || id || cast(failures as text) from breaker",
];

/// How many steps lead back to before there were sinks.
async fn steps_back(url: &str) -> u32 {
    let steps = schema::status(url).await.expect("status");
    let later = steps.iter().rev().take_while(|step| !step.name.contains("add_sinks")).count();
    u32::try_from(later + 1).expect("few")
}

async fn texts(raw: &DatabaseConnection) -> Vec<String> {
    let mut all = Vec::new();
    for text in KEPT {
        let statement = Statement::from_string(raw.get_database_backend(), format!("{text} order by 1"));
        for row in raw.query_all_raw(statement).await.expect("rows") {
            all.push(row.try_get_by_index::<String>(0).expect("a text"));
        }
    }
    all
}

/// An open round, a settled range, a letter and a breaker for each watch that is there.
async fn begin_rounds(raw: &DatabaseConnection) {
    let path = if raw.get_database_backend() == DbBackend::Postgres { "'a'::bytea" } else { "x'61'" };
    let (commit, digest) = ("01".repeat(20), "00".repeat(32));
    for text in [
        &format!(
            "insert into round (cursor_id, number, kind, target, target_view, rules, deletes, creates, updates, total,
               digest, branch, url, format, history_rewritten, skipped_commits, complete, announced, position, began_at)
             select c.id, 7, 'sync', '{commit}', w.view_id, {RULES}, 0, 5, 0, 5, '{digest}', c.branch, w.shown_url,
               'docora', false, false, false, false, 2, 1 from cursor c join watch w on w.id = c.watch_id"
        ),
        "update cursor set open_round = 7, last_round = 7",
        "insert into settled (cursor_id, round, from_position, to_position, settled_at)
         select id, 7, 0, 2, 1 from cursor",
        &format!(
            "insert into dead_letter (id, app_id, watch_id, cursor_id, round, position, path, operation, delivery_id,
               reason, status, excerpt, counted, self_redriven, created_at)
             select 'dead_' || substr(c.id, 5), w.app_id, w.id, c.id, 7, 1, {path}, 'create', 'dlv_' || c.id,
               'rejected', 'open', 'no', true, false, 1 from cursor c join watch w on w.id = c.watch_id"
        ),
        "insert into breaker (kind, id, failures, opened_at, probe_at, last_error)
         select 'endpoint', id, 5, 1, 2, 'status 503' from app",
    ] {
        raw.execute_unprepared(text).await.expect(text);
    }
}

async fn what_the_version_before_wrote_goes_on_under_its_ids(home: Home) {
    let store = home.open(1).await.expect("opened");
    let mut apps = Vec::new();
    for (count, address) in [
        (1, SinkAddress::Endpoint("https://app.example".into())),
        (2, SinkAddress::Stream("nats://broker.example/git".into())),
        (3, SinkAddress::Pull),
    ] {
        let app = NewApp { receives_at: address, ..new_app(count) };
        store.create_app(&app).await.expect("created");
        apps.push((app.id.clone(), watch(&store, &app.id, count, None).await.cursors[0].id.clone()));
    }
    store.close().await;
    schema::down(home.url(), steps_back(home.url()).await).await.expect("the version before");
    let raw = home.raw().await;
    begin_rounds(&raw).await;
    let before = texts(&raw).await;
    assert_eq!(before.len(), 18, "each table has a row for each app");
    raw.close().await.expect("closed");
    assert_eq!(schema::up(home.url()).await.expect("up")[0], "m20261124_000100_add_sinks");
    let raw = home.raw().await;
    assert_eq!(texts(&raw).await, before);

    let store = home.open(1).await.expect("opened");
    for (app, cursor) in &apps {
        let pending = store.pending(Some(app), &Reach::All).await.expect("pending");
        assert_eq!(pending, [(SinkKey::own(app), cursor.clone())]);
        let lane = store.lane(cursor).await.expect("a lane");
        assert_eq!((lane.sink, lane.open.map(|round| (round.number, round.position))), (None, Some((7, 2))));
    }
    // Foreign keys are on again: what refers to a watch goes with it.
    store.erase_app(&apps[0].0).await.expect("erased");
    assert_eq!(number(&raw, "select count(*) from dead_letter").await, 2);
    store.close().await;
    schema::down(home.url(), steps_back(home.url()).await).await.expect("nothing needs the new columns");
    assert_eq!(texts(&raw).await.len(), 12);
}

async fn the_way_back_is_closed_while_a_sink_is_used(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let watch = watch(&store, &app.id, 1, None).await;
    let sink = NewSink {
        id: SinkId::new(Ulid::from_parts(3, 1)),
        address: SinkAddress::Pull,
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        signing_key: None,
    };
    let to = |sink| WatchPatch { sink: Some(sink), ..WatchPatch::default() };
    store.patch_watch(&app.id, &watch.id, &to(Some(sink))).await.expect("its own sink");
    store.close().await;
    let refused =
        schema::down(home.url(), steps_back(home.url()).await).await.expect_err("it is used").to_string();
    assert!(refused.contains("1 watches have a watch_name or a sink of their own"), "{refused}");
    let store = home.open(1).await.expect("nothing was changed");
    let back = store.patch_watch(&app.id, &watch.id, &to(None)).await.expect("patched");
    assert_eq!(back.sink, None);
    store.close().await;
    schema::down(home.url(), steps_back(home.url()).await).await.expect("down");
}

/// A change of the format alone waits for the next round, in which the receiver of the sink expects it.
async fn an_open_round_goes_on_in_the_format_of_the_sink_that_its_changes_go_to(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let watch = watch(&store, &app.id, 1, None).await;
    let raw = home.raw().await;
    begin_rounds(&raw).await;
    let open = "select count(*) from round where format = 'cloudevents'";
    let endpoint = || SinkAddress::Endpoint("https://one.example".into());
    let stream = || SinkAddress::Stream("nats://broker.example/git".into());
    let sink = |address, delivery: &DeliverySettings| {
        Some(NewSink {
            id: SinkId::new(Ulid::from_parts(3, 1)),
            address,
            access: EndpointAccess::default(),
            delivery: delivery.clone(),
            signing_key: None,
        })
    };
    let (plain, events) = (
        DeliverySettings::default(),
        DeliverySettings { format: PayloadFormat::Cloudevents, ..DeliverySettings::default() },
    );
    for (step, (to, is_cloudevents)) in [
        (sink(stream(), &plain), 1),
        (sink(SinkAddress::Pull, &plain), 0),
        (sink(SinkAddress::Pull, &events), 0),
        (sink(endpoint(), &events), 1),
        (sink(endpoint(), &plain), 1),
        (None, 0),
        (sink(endpoint(), &events), 1),
        (None, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let patch = WatchPatch { sink: Some(to), ..WatchPatch::default() };
        store.patch_watch(&app.id, &watch.id, &patch).await.expect("patched");
        assert_eq!(number(&raw, open).await, is_cloudevents, "step {step}");
    }
    for (address, is_cloudevents) in [(stream(), 1), (endpoint(), 0), (stream(), 1), (SinkAddress::Pull, 0)] {
        let patch = AppPatch { receives_at: Some(address.clone()), ..AppPatch::default() };
        store.patch_app(&app.id, &patch, Timestamp(5000)).await.expect("patched");
        assert_eq!(number(&raw, open).await, is_cloudevents, "{address:?}");
    }
}

on_both! {
    an_open_round_goes_on_in_the_format_of_the_sink_that_its_changes_go_to
    what_the_version_before_wrote_goes_on_under_its_ids
    the_way_back_is_closed_while_a_sink_is_used
}
