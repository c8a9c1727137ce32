//! A small world to keep promises in: apps, watches, rounds and settlements by number.

use std::sync::atomic::{AtomicU64, Ordering};

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, Sha256Hash, WatchId},
    kind::{BranchGone, HistoryMode, Operation, ParkReason, PayloadFormat, RoundKind, SelectorKind},
};
use ulid::Ulid;

use crate::{
    model::round::{Change, DeliveryId, Entry, Letter, RULES, Round, RoundSpec, Summary, TreeEnd},
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::{MAX_SIZE_DEFAULT, View},
    ports::{
        AppPatch, DeliverySettings, EndpointAccess, Glimpse, LaneSnapshot, LaneTerms, NewApp, NewRound,
        NewWatch, Park, Reach, Ref, RefListing, RepositoryFacts, Selector, Settlement, Standing, Start,
        Store, Streak, Watch,
    },
    time::Timestamp,
};

pub(super) const MAIN: &str = "refs/heads/main";
pub(super) const URL: &str = "https://git.example/one/two";

/// What a listing that lacks it proves to be gone.
const GONE: [&str; 8] = [
    MAIN,
    "refs/heads/trunk",
    "refs/heads/dev",
    "refs/heads/other",
    "refs/heads/release/1",
    "refs/heads/release/2",
    "refs/tags/v1",
    "refs/tags/v2",
];

/// A store and a counter for ids.
pub(super) struct World<'s> {
    pub(super) store: &'s dyn Store,
    next: AtomicU64,
}

pub(super) fn commit(number: u8) -> ObjectId {
    ObjectId::new([number; 20])
}

pub(super) fn entry(number: u8) -> Entry {
    Entry { mode: 0o100_644, blob: commit(number) }
}

pub(super) fn view(glob: &str) -> View {
    View::new(vec![glob.into()], vec![], false, tidings_entity::kind::ContentRule::Inline, MAX_SIZE_DEFAULT)
        .expect("a valid glob")
}

pub(super) fn tree(number: u8, view: &View) -> TreeEnd {
    TreeEnd { commit: commit(number), view: view.clone() }
}

pub(super) fn listing(refs: &[(&str, u8)]) -> RefListing {
    let mut refs: Vec<Ref> =
        refs.iter().map(|(name, number)| Ref { name: (*name).into(), commit: commit(*number) }).collect();
    refs.sort_by(|left, right| left.name.cmp(&right.name));
    RefListing {
        has_refs: !refs.is_empty(),
        head: Some(MAIN.into()),
        gone: GONE
            .iter()
            .filter(|name| refs.iter().all(|found| found.name != **name))
            .map(ToString::to_string)
            .collect(),
        asked_at: None,
        moved_to: None,
        refs,
        ..RefListing::default()
    }
}

pub(super) fn change(path: &str, operation: Operation) -> Change {
    Change { operation, path: path.into(), old: Some(entry(1)), new: Some(entry(2)), replay_of: None }
}

impl<'s> World<'s> {
    pub(super) fn new(store: &'s dyn Store) -> Self {
        Self { store, next: AtomicU64::new(1) }
    }

    pub(super) fn ulid(&self) -> Ulid {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        Ulid::from_parts(number, number.into())
    }

    pub(super) fn new_app(&self) -> NewApp {
        let ulid = self.ulid();
        NewApp {
            id: AppId::new(ulid),
            name: "an app".into(),
            email: "a@example.org".into(),
            is_from_anyone: false,
            receives_at: SinkAddress::Endpoint("https://app.example".into()),
            website: None,
            description: None,
            token_public_id: ulid.to_string(),
            token_hash: Sha256Hash::of(b"token"),
            signing_key: Secret::new("signing".into()),
            access: EndpointAccess::default(),
            delivery: DeliverySettings::default(),
            created_at: Timestamp(1000),
            answer: None,
        }
    }

    pub(super) async fn app(&self) -> AppId {
        let app = self.new_app();
        self.store.create_app(&app).await.expect("an app");
        app.id
    }

    /// A registration for branch `main` at commit 1.
    pub(super) fn new_watch(&self, app: &AppId) -> NewWatch {
        let id = WatchId::new(self.ulid());
        NewWatch {
            facts: RepositoryFacts {
                repository_id: id.clone(),
                github_url: "https://Git.Example/one/two.git".into(),
                owner: "one".into(),
                name: "two".into(),
            },
            id,
            app: app.clone(),
            url: URL.into(),
            is_private: false,
            credential: None,
            selector: Selector { kind: SelectorKind::Branch, value: "main".into() },
            alias: String::new(),
            may_replace: true,
            sink: None,
            status: None,
            view: View::default(),
            mode: HistoryMode::Net,
            on_branch_gone: BranchGone::Keep,
            start: Start::All,
            listing: listing(&[(MAIN, 1)]),
            deliver_after: Timestamp(2000),
            created_at: Timestamp(1000),
        }
    }

    pub(super) async fn watch(&self, app: &AppId) -> Watch {
        self.store.register_watch(&self.new_watch(app)).await.expect("a watch")
    }

    /// A watched repository, and the cursor of its one branch.
    pub(super) async fn watched(&self) -> (AppId, Watch, CursorId) {
        let app = self.app().await;
        let watch = self.watch(&app).await;
        let cursor = watch.cursors[0].id.clone();
        (app, watch, cursor)
    }

    pub(super) async fn lane(&self, cursor: &CursorId) -> LaneSnapshot {
        let lane = self.store.lane(cursor).await.expect("a lane");
        let glimpse = self.store.glimpse(cursor).await.expect("a look");
        let pending = self.store.pending(Some(&lane.app), &Reach::All).await.expect("a list");
        let is_waiting = pending.iter().any(|(_, id)| id == cursor);
        assert_eq!(
            glimpse,
            Glimpse { repository: lane.remote.repository.clone(), sink: lane.sink.clone(), is_waiting }
        );
        let terms = self.store.lane_terms(std::slice::from_ref(cursor)).await.expect("a look");
        assert_eq!(terms, [(cursor.clone(), LaneTerms::of(&lane))], "as a lane is opened that is opened now");
        lane
    }

    /// A sync round of `total` changes from what is held to commit `target`.
    pub(super) async fn plan(&self, cursor: &CursorId, target: u8, total: u64) -> NewRound {
        let lane = self.lane(cursor).await;
        NewRound {
            planned_after: lane.last_round,
            round: Round {
                cursor: cursor.clone(),
                number: lane.last_round + 1,
                spec: RoundSpec {
                    kind: RoundKind::Sync,
                    held: lane.held.map(|(commit, view)| TreeEnd { commit, view }),
                    target: Some(tree(target, &lane.view)),
                    bases: vec![],
                    letters: vec![],
                },
                summary: Summary { deletes: 0, creates: total, updates: 0, digest: Sha256Hash::of(b"list") },
                rules: RULES,
                began_at: Timestamp(3000),
                branch: MAIN.into(),
                url: URL.into(),
                format: PayloadFormat::Cloudevents,
                history_rewritten: true,
                skipped_commits: false,
                complete: false,
                position: 0,
            },
        }
    }

    /// The resync that was asked for, to commit `target`.
    pub(super) async fn plan_resync(&self, cursor: &CursorId, target: u8, total: u64) -> NewRound {
        let lane = self.lane(cursor).await;
        let mut new = self.plan(cursor, target, total).await;
        new.round.spec.kind = RoundKind::Resync;
        new.round.spec.bases = lane.resync_bases;
        new.round.complete = lane.resync.expect("a resync was asked for");
        new
    }

    /// Begins a sync round.
    pub(super) async fn begin(&self, cursor: &CursorId, target: u8, total: u64) -> Round {
        let new = self.plan(cursor, target, total).await;
        self.store.begin_round(&new).await.expect("begun");
        new.round
    }

    pub(super) fn settlement(&self, round: &Round, position: u64) -> Settlement {
        Settlement {
            cursor: round.cursor.clone(),
            round: round.number,
            position,
            parked: vec![],
            streak: Streak::default(),
            above: vec![],
            absorbs: false,
            acknowledged: true,
            standing: Standing::Unchanged,
            redrive: vec![],
            at: Timestamp(4000),
        }
    }

    pub(super) async fn settle(&self, round: &Round, position: u64) -> bool {
        self.store.settle(self.settlement(round, position)).await.expect("settled")
    }

    /// Settles all of a round and ends it.
    pub(super) async fn finish(&self, round: &Round) {
        self.finish_told(round, true).await;
    }

    /// Finishes a round, whether or not the app took the notice of the end.
    pub(super) async fn finish_told(&self, round: &Round, end_told: bool) {
        if round.summary.total() > 0 {
            self.settle(round, round.summary.total()).await;
        }
        let done = self.store.finish_round(&round.cursor, round.number, Timestamp(5000), end_told).await;
        assert!(done.expect("finished"), "round {} ends", round.number);
    }

    /// Brings a cursor to `target` by a round of one change.
    pub(super) async fn sync(&self, cursor: &CursorId, target: u8) {
        let round = self.begin(cursor, target, 1).await;
        self.finish(&round).await;
    }

    /// Serves an app no more for a reason, or again.
    pub(super) async fn disable(&self, app: &AppId, reason: Option<&str>) {
        let patch = AppPatch { disabled: Some(reason.map(str::to_owned)), ..AppPatch::default() };
        self.store.patch_app(app, &patch, Timestamp(5000)).await.expect("patched");
    }

    pub(super) fn park(&self, round: &Round, position: u64, path: &str) -> Park {
        let change = change(path, Operation::Update);
        Park {
            id: DeadLetterId::new(self.ulid()),
            position,
            delivery: DeliveryId::of(&round.cursor, round.number, &change),
            change,
            reason: ParkReason::Rejected,
            counted: false,
            status: Some(422),
            excerpt: "no".into(),
        }
    }

    /// Begins a round to `target`, parks `paths` as its only changes and ends it; their letters.
    pub(super) async fn parked(&self, cursor: &CursorId, target: u8, paths: &[&str]) -> Vec<Letter> {
        let round = self.begin(cursor, target, paths.len() as u64).await;
        let parked: Vec<Park> =
            paths.iter().zip(0..).map(|(path, position)| self.park(&round, position, path)).collect();
        let letters = parked.iter().map(|park| Letter {
            id: park.id.clone(),
            path: park.change.path.clone(),
            before: park.change.old,
            delivery: park.delivery.clone(),
        });
        let letters = letters.collect();
        let settlement =
            Settlement { parked, acknowledged: false, ..self.settlement(&round, paths.len() as u64) };
        assert!(self.store.settle(settlement).await.expect("settled"));
        self.finish_settled(&round).await;
        letters
    }

    /// Ends a round that is settled already.
    pub(super) async fn finish_settled(&self, round: &Round) {
        let done = self.store.finish_round(&round.cursor, round.number, Timestamp(5000), true).await;
        assert!(done.expect("finished"), "round {} ends", round.number);
    }

    pub(super) async fn is_pending(&self, cursor: &CursorId) -> bool {
        let pending = self.store.pending(None, &Reach::All).await.expect("pending");
        pending.iter().any(|(_, waiting)| waiting == cursor)
    }
}
