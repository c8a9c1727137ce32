//! A sender over stand-ins for Git and store, and orders for it to deliver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tidings::{egress::Egress, settings::EgressSettings, sinks::Webhooks};
use tidings_actors::{
    model::round::{Change, DeliveryId, Entry, Round, RoundSpec, Summary, TreeEnd},
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::View,
    ownership::shards::ShardHold,
    ports::{
        Action, AttemptOutcome, Clock, DeliveryOrder, Endpoint, LaneFacts, Location, Parcel, ParcelBody,
        PrepareError, Random, Remote, RepositoryFacts, SinkKey, Transport,
    },
    testing::MemoryStore,
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, RepositoryId, Sha256Hash, WatchId},
    kind::{ContentRule, Operation, PayloadFormat, RoundKind},
};
use ulid::Ulid;

use super::content::Blobs;

pub(crate) const SECRET: &str = "a-client-auth-key";
/// Deadline of an attempt in these stories.
pub(crate) const DEADLINE: Duration = Duration::from_millis(400);

pub(crate) struct WallClock;

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "receivers compare with the real time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Timestamp(i64::try_from(since.as_millis()).expect("before the end of time"))
    }
}

#[derive(Default)]
pub(crate) struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, Ordering::SeqCst));
    }
}

pub(crate) struct World {
    pub(crate) webhooks: Webhooks,
    pub(crate) git: Arc<Blobs>,
    pub(crate) store: Arc<MemoryStore>,
}

impl World {
    /// Renders one delivery, with all the room that it wants.
    pub(crate) async fn prepare(&self, order: &DeliveryOrder) -> Result<Parcel, PrepareError> {
        let parcels = self.webhooks.prepare(&Arc::from([order.clone()]), u64::MAX).await?;
        Ok(parcels.into_iter().next().expect("the first or an error"))
    }

    /// One attempt of a process that has the database to itself.
    pub(crate) async fn send(&self, endpoint: &Endpoint, parcel: &Parcel) -> AttemptOutcome {
        self.webhooks.send(endpoint, parcel, &ShardHold::sole()).await.expect("its right does not end")
    }
}

pub(crate) fn world() -> World {
    let settings =
        EgressSettings { allow: vec!["127.0.0.0/8".into()], allow_http: true, ..EgressSettings::default() };
    world_with(&settings)
}

pub(crate) fn world_with(settings: &EgressSettings) -> World {
    let (git, store) = (Arc::new(Blobs::default()), Arc::new(MemoryStore::new(Arc::new(WallClock))));
    let egress = Egress::new(settings).expect("settings");
    let webhooks =
        Webhooks::new(egress, git.clone(), store.clone(), Arc::new(WallClock), Arc::new(Counting::default()));
    World { webhooks, git, store }
}

pub(crate) fn endpoint(base_url: String) -> Endpoint {
    Endpoint {
        sink: SinkKey::own(&AppId::new(Ulid::from_parts(1, 9))),
        app: AppId::new(Ulid::from_parts(1, 9)),
        address: SinkAddress::of(Some(base_url)),
        since: Timestamp(0),
        keys: vec![Secret::new(SECRET.into())],
        access: Arc::default(),
        timeout: DEADLINE,
        pace: None,
        in_flight: None,
        format: PayloadFormat::Docora,
        contact: String::new(),
    }
}

pub(crate) fn parcel(body: impl Into<Bytes>) -> Parcel {
    let id = DeliveryId::from_stored("dlv_story".into());
    let (body, format) = (ParcelBody::Whole(body.into()), PayloadFormat::Docora);
    let watch = WatchId::new(Ulid::from_parts(1, 2));
    Parcel { id, action: Action::Create, watch, format, body, held: None }
}

pub(crate) fn blob(byte: u8) -> ObjectId {
    ObjectId::new([byte; 20])
}

pub(crate) fn order(operation: Operation, old: Option<u8>, new: Option<u8>) -> DeliveryOrder {
    let entry = |byte| Entry { mode: 0o100_644, blob: blob(byte) };
    let end = |byte| Some(TreeEnd { commit: blob(byte), view: View::default() });
    let change = Change {
        operation,
        path: b"docs/a.md".to_vec(),
        old: old.map(entry),
        new: new.map(entry),
        replay_of: None,
    };
    let cursor = CursorId::new(Ulid::from_parts(1, 1));
    let round = Round {
        cursor: cursor.clone(),
        number: 7,
        spec: RoundSpec {
            kind: RoundKind::Sync,
            held: end(0xaa),
            target: end(0xbb),
            bases: vec![],
            letters: vec![],
        },
        summary: Summary { deletes: 0, creates: 1, updates: 0, digest: Sha256Hash::of(b"") },
        rules: 1,
        began_at: Timestamp(1_767_225_600_000),
        branch: "refs/heads/main".into(),
        url: "https://github.com/o/r".into(),
        format: PayloadFormat::Docora,
        history_rewritten: false,
        skipped_commits: false,
        complete: false,
        position: 0,
    };
    let lane = LaneFacts {
        inline_max: None,
        remote: Remote {
            repository: RepositoryId::new(Ulid::from_parts(1, 2)),
            location: Location::Local("/nowhere".into()),
            credential: None,
            apps: Vec::new(),
        },
        repository: RepositoryFacts {
            repository_id: WatchId::new(Ulid::from_parts(1, 3)),
            github_url: "https://github.com/o/r".into(),
            owner: "o".into(),
            name: "r".into(),
        },
        round: Arc::new(round),
        commit: None,
    };
    DeliveryOrder {
        id: DeliveryId::of(&cursor, 7, &change),
        lane: Arc::new(lane),
        change,
        renamed_from: None,
        position: 0,
        unobtainable: vec![],
    }
}

pub(crate) fn with_view(mut order: DeliveryOrder, content: ContentRule, max_size: u64) -> DeliveryOrder {
    let view = View::new(vec![], vec![], false, content, max_size).expect("a view");
    let lane = Arc::make_mut(&mut order.lane);
    let spec = &mut Arc::make_mut(&mut lane.round).spec;
    spec.target.as_mut().expect("a target").view = view;
    order
}

pub(crate) fn text_of(parcel: &Parcel) -> String {
    match &parcel.body {
        ParcelBody::Whole(body) => String::from_utf8(body.to_vec()).expect("JSON is UTF-8"),
        ParcelBody::Chunked { .. } => panic!("not chunked"),
    }
}
