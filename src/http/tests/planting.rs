//! Rows that requests alone do not make: dead letters, and a round that is open.

use data_encoding::HEXLOWER;
use tidings_actors::{
    model::round::{RULES, Round, RoundSpec, TreeEnd},
    model::view::View,
    ports::{Administration, LaneStore, LetterFilter, NewRound, Settlement, Standing, Streak, Watch},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, DeadLetterId, ObjectId},
    kind::{PayloadFormat, RoundKind},
};
use ulid::Ulid;

use super::{House, git::HEAD, histories::summary};

impl House {
    /// Runs a statement on the database.
    pub(crate) async fn plant(&self, text: &str) {
        self.sqlite().tamper(text).await;
    }

    /// Puts an open dead letter into the store: a delete that the receiver of an app refused, on the first branch
    /// that the app watches.
    pub(crate) async fn park(&self, app: &AppId, path: &[u8]) -> DeadLetterId {
        let known = self.sqlite().all_dead_letters(None, &LetterFilter::default(), None, 100).await;
        let position = known.expect("read").letters.len();
        let id = DeadLetterId::new(Ulid::from_parts(1, position as u128));
        let path = HEXLOWER.encode(path);
        let branch = format!(
            "from cursor c join watch w on w.id = c.watch_id where w.app_id = '{app}' order by c.id limit 1"
        );
        self.plant(&format!(
            "insert into dead_letter (id, app_id, watch_id, cursor_id, round, position, path, operation,
               delivery_id, reason, status, http_status, excerpt, created_at, counted, self_redriven)
             select '{id}', w.app_id, w.id, c.id, 1, {position}, x'{path}', 'delete',
               'dlv_{position}', 'rejected', 'open', 400, 'no', 0, false, false {branch}"
        ))
        .await;
        self.plant(&format!(
            "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, status,
               item_failure, excerpt, took_ms, ended_at)
             select 'cursor', c.id, 1, {position}, 1, 'dlv_{position}', 400, true, 'no', 7, 0 {branch}"
        ))
        .await;
        id
    }

    /// A later change of its path made a letter moot.
    pub(crate) async fn supersede(&self, id: &DeadLetterId) {
        self.plant(&format!("update dead_letter set status = 'superseded', closed_at = 1 where id = '{id}'"))
            .await;
    }

    /// Begins a round of `total` changes on the first branch of a watch, of which this many are settled.
    pub(crate) async fn begin_round(&self, watch: &Watch, number: i64, settled: u64, total: u64) {
        let cursor = watch.cursors[0].id.clone();
        let round = Round {
            cursor: cursor.clone(),
            number,
            spec: RoundSpec {
                kind: RoundKind::Sync,
                held: watch.cursors[0].held.map(|commit| TreeEnd { commit, view: watch.view.clone() }),
                target: Some(TreeEnd { commit: ObjectId::new(HEAD), view: View::default() }),
                bases: Vec::new(),
                letters: Vec::new(),
            },
            summary: summary(total),
            rules: RULES,
            began_at: Timestamp(number),
            branch: "refs/heads/main".into(),
            url: "https://git.example/o/r".into(),
            format: PayloadFormat::Cloudevents,
            history_rewritten: false,
            skipped_commits: false,
            complete: false,
            position: 0,
        };
        let begun = self.sqlite().begin_round(&NewRound { round, planned_after: 0 }).await;
        begun.expect("begun");
        let settlement = Settlement {
            cursor,
            round: number,
            position: settled,
            parked: Vec::new(),
            streak: Streak::default(),
            above: Vec::new(),
            absorbs: false,
            acknowledged: true,
            standing: Standing::Unchanged,
            redrive: Vec::new(),
            at: Timestamp(1),
        };
        assert!(self.sqlite().settle(settlement).await.expect("settled"));
    }
}
