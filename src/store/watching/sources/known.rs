//! The facts about a source before a listing. Every poll reads them, so they take one statement: one
//! consistent read without a transaction, and one trip to a reading connection. Of a listing that leaves refs
//! out they take no row of a cursor of these refs ([`Asked`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::{
    model::follow::{Known, KnownCursor, KnownWatch},
    ports::{RefListing, Selector, SinkKey, StoreError, Streak},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, SinkId, SourceId, ViewId, WatchId},
    kind::{BranchGone, CursorState, SelectorKind, WatchState},
};

use crate::{
    apps::sinks::SERVED,
    database::{error::OfTable, rows},
};

/// A row for each cursor, with its watch and the head of its branch; a row for a watch without cursors, and
/// for a source without watches; and a row for each head without a cursor.
static KNOWN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}
    union all
    select s.head_ref, s.moved_to, h.ref_name, h.commit_id, h.moved_at, h.fault,
      null, null, null, null, null, null, null, null, null, null,
      null, null, null, null, null, null, null, null, null, null, null
    from source s join head h on h.source_id = s.id
    where s.id = $1 and h.ref_name not in
      (select c.branch from watch w join cursor c on c.watch_id = w.id where w.source_id = $1)",
        of_cursors("1 = 1")
    )
});

/// The rows of the watches and of those of their cursors for which the condition holds.
fn of_cursors(condition: &str) -> String {
    format!(
        "
    select s.head_ref, s.moved_to, h.ref_name as h_ref_name, h.commit_id as h_commit_id,
      h.moved_at as h_moved_at,
      h.fault as h_fault,
      w.id as w_id, w.app_id as w_app_id, w.selector_kind as w_selector_kind,
      w.selector_value as w_selector_value, w.on_branch_gone as w_on_branch_gone, w.view_id as w_view_id,
      w.state as w_state, w.sink_id as w_sink_id, case when {SERVED} then 1 else 0 end as w_served,
      c.id as c_id, c.watch_id as c_watch_id, c.slot as c_slot, c.branch as c_branch, c.held as c_held,
      c.held_view as c_held_view, c.open_round as c_open_round, c.state as c_state, c.streak as c_streak,
      c.refused as c_refused, c.acknowledged as c_acknowledged, c.resync as c_resync
    from source s
    left join watch w on w.source_id = s.id
    left join app a on a.id = w.app_id
    left join sink k on k.id = w.sink_id
    left join cursor c on c.watch_id = w.id and {condition}
    left join head h on h.source_id = s.id and h.ref_name = c.branch
    where s.id = $1"
    )
}

/// Most patterns in one statement. With more, all rows are read, which is right as well.
const PATTERNS_MAX: usize = 500;

/// The cursors that a listing with refs left out says something about: those of single branches, and those of
/// patterns (their slot is their ref, and in the index of their watch) whose ref was asked for.
pub(crate) struct Asked {
    unseen: Vec<String>,
    /// The patterns that were listed and share names with `unseen`.
    seen: Vec<String>,
}

impl Asked {
    /// The cursors of a listing; `None`: it left no refs out, so all cursors count.
    pub(crate) fn of(listing: &RefListing) -> Option<Self> {
        if !listing.is_partial {
            return None;
        }
        let unseen = listing.unseen.clone();
        let is_shared = |seen: &&String| {
            unseen.iter().any(|unseen| seen.starts_with(unseen.as_str()) || unseen.starts_with(seen.as_str()))
        };
        let seen: Vec<String> = listing.seen.iter().filter(is_shared).cloned().collect();
        (unseen.len() + seen.len() <= PATTERNS_MAX).then_some(Self { unseen, seen })
    }

    /// The condition on a cursor `c`, whose values begin at this place; and the values.
    pub(crate) fn condition(&self, first: usize) -> (String, Vec<Value>) {
        let mut values: Vec<Value> = Vec::new();
        let mut named = |patterns: &[String]| {
            let mut terms = vec!["1 = 0".to_owned()];
            for pattern in patterns {
                let place = first + values.len();
                values.push(pattern.clone().into());
                terms.push(match pattern.ends_with('/') {
                    true => format!("substr(c.slot, 1, {}) = ${place}", pattern.chars().count()),
                    false => format!("c.slot = ${place}"),
                });
            }
            terms.join(" or ")
        };
        let (unseen, seen) = (named(&self.unseen), named(&self.seen));
        (format!("(not ({unseen}) or {seen})"), values)
    }
}

#[derive(FromQueryResult)]
struct HeadRow {
    ref_name: Option<String>,
    commit_id: Option<ObjectId>,
    moved_at: Option<i64>,
    fault: Option<String>,
}

#[derive(FromQueryResult)]
struct WatchRow {
    id: WatchId,
    app_id: AppId,
    selector_kind: SelectorKind,
    selector_value: String,
    on_branch_gone: BranchGone,
    view_id: ViewId,
    state: WatchState,
    sink_id: Option<SinkId>,
    served: i32,
}

#[derive(FromQueryResult)]
struct CursorRow {
    id: CursorId,
    watch_id: WatchId,
    slot: String,
    branch: String,
    held: Option<ObjectId>,
    held_view: Option<ViewId>,
    open_round: Option<i64>,
    state: CursorState,
    streak: i32,
    refused: i32,
    acknowledged: bool,
    resync: Option<bool>,
}

/// All facts about a source that following needs. A watch or cursor that cannot be read is left out and
/// logged.
///
/// # Errors
/// [`StoreError::NotFound`] for a source that does not exist.
pub(crate) async fn known(connection: &impl ConnectionTrait, id: &SourceId) -> Result<Known, StoreError> {
    known_of(connection, id, None).await
}

/// The facts about a source that following a listing needs: with `asked`, without the other cursors and
/// without heads that have no cursor.
///
/// # Errors
/// [`StoreError::NotFound`] for a source that does not exist.
pub(crate) async fn known_of(
    connection: &impl ConnectionTrait,
    id: &SourceId,
    asked: Option<&Asked>,
) -> Result<Known, StoreError> {
    let mut values: Vec<Value> = vec![id.clone().into()];
    let rows = match asked {
        None => rows::mixed(connection, "source", &KNOWN, values).await?,
        Some(asked) => {
            let (condition, own) = asked.condition(2);
            values.extend(own);
            rows::mixed(connection, "source", &of_cursors(&condition), values).await?
        }
    };
    let source = rows.first().ok_or(StoreError::NotFound)?;
    let mut known = Known {
        head_ref: source.try_get("", "head_ref").of("source")?,
        moved_to: source.try_get("", "moved_to").of("source")?,
        ..Known::default()
    };
    let (mut views, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for row in &rows {
        let head = HeadRow::from_query_result(row, "h_").of("head")?;
        if let HeadRow { ref_name: Some(name), commit_id: Some(commit), moved_at: Some(at), fault } = head {
            known.faults.extend(fault.map(|fault| (name.clone(), fault)));
            known.heads.insert(name, (commit, Timestamp(at)));
        }
        // The rows of a watch with many cursors repeat it.
        let name: Option<String> = row.try_get("w_", "id").of("watch")?;
        if name.is_some_and(|name| seen.insert(name))
            && let Some(watch) = part::<WatchRow>(row, "watch", "w_")
        {
            views.insert(watch.id.clone(), watch.view_id);
            known.watches.push(watch.known());
        }
    }
    for row in &rows {
        let name: Option<String> = row.try_get("c_", "id").of("cursor")?;
        if let Some(cursor) = name.and_then(|_| part::<CursorRow>(row, "cursor", "c_")) {
            let view = views.get(&cursor.watch_id);
            known.cursors.push(cursor.known(view));
        }
    }
    Ok(known)
}

/// A part of a row, or nothing and a line in the log.
fn part<M: FromQueryResult>(row: &QueryResult, table: &'static str, prefix: &str) -> Option<M> {
    rows::readable_or_logged(M::from_query_result(row, prefix).of(table))
}

impl WatchRow {
    fn known(self) -> KnownWatch {
        KnownWatch {
            id: self.id,
            sink: SinkKey { app: self.app_id, sink: self.sink_id },
            selector: Selector { kind: self.selector_kind, value: self.selector_value },
            on_branch_gone: self.on_branch_gone,
            served: self.state == WatchState::Active && self.served == 1,
        }
    }
}

impl CursorRow {
    /// `view` is that of its watch.
    fn known(self, view: Option<&ViewId>) -> KnownCursor {
        let is_of_another_view = self.held_view.is_some_and(|held| view != Some(&held));
        KnownCursor {
            due: self.resync.is_some() || self.is_moot() || is_of_another_view,
            id: self.id,
            watch: self.watch_id,
            slot: self.slot,
            branch: self.branch,
            held: self.held,
            open: self.open_round.is_some(),
            state: self.state,
        }
    }

    /// Whether the block is about an earlier head of the branch, not about deliveries.
    fn is_moot(&self) -> bool {
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let streak = Streak { count: count(self.streak), from: None, refused: count(self.refused) };
        self.state == CursorState::Blocked && self.open_round.is_none() && !streak.blocks(self.acknowledged)
    }
}
