//! The state of a cursor at a commit, as one word and a line. The line names no path, no endpoint and no
//! reason, because everyone who can read the repository at its host can read it.

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::StoreError;
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, RepositoryId, WatchId},
    kind::{CursorState, RoundKind, StatusHost, StatusWord, WatchState},
};

use crate::{apps::sinks::SERVED, database::rows};

/// Characters of the name of an app in a line.
const NAME_MAX: usize = 60;
/// The most branches at one commit that are compared.
const OTHERS_MAX: u32 = 32;

/// A cursor with the facts that its status depends on.
#[derive(Clone, Debug, FromQueryResult)]
pub(super) struct Spot {
    pub(super) id: CursorId,
    pub(super) watch_id: WatchId,
    pub(super) app_id: AppId,
    pub(super) repository_id: RepositoryId,
    pub(super) url: String,
    pub(super) status_host: Option<StatusHost>,
    pub(super) status_context: Option<String>,
    pub(super) held: Option<ObjectId>,
    app_name: String,
    state: CursorState,
    watch_state: WatchState,
    is_served: bool,
    open_round: Option<i64>,
    resync: Option<bool>,
    kind: Option<RoundKind>,
    target: Option<ObjectId>,
    position: Option<i64>,
    total: Option<i64>,
    head: Option<ObjectId>,
}

/// The state to show, and its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) cursor: CursorId,
    pub(super) word: StatusWord,
    pub(super) description: String,
}

impl Picture {
    /// The worse of two states.
    pub(super) fn worse(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let rank = |picture: &Self| match picture.word {
            StatusWord::Blocked => 5,
            StatusWord::Parked => 4,
            StatusWord::Paused => 3,
            StatusWord::Pending => 2,
            StatusWord::Success => 1,
            StatusWord::Superseded | StatusWord::Cancelled => 0,
        };
        match (one, other) {
            (Some(one), Some(other)) => Some(if rank(&other) > rank(&one) { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

impl Spot {
    /// Whether the watch shows statuses.
    pub(super) fn is_shown(&self) -> bool {
        self.status_host.is_some() && self.status_context.is_some()
    }

    /// The commit that the cursor is on the way to.
    pub(super) fn way(&self) -> Option<ObjectId> {
        match self.open_round {
            Some(_) => self.target,
            None if self.state == CursorState::Blocked => self.head,
            None => None,
        }
    }

    /// Whether the same commit is about to be sent again.
    fn comes_again(&self, commit: ObjectId) -> bool {
        self.open_round.is_none()
            && self.resync.is_some()
            && self.head == Some(commit)
            && self.state == CursorState::Active
    }

    fn is_moving(&self) -> bool {
        self.watch_state == WatchState::Active && self.is_served
    }

    /// A line that begins with the name of the app.
    pub(super) fn line(&self, text: &str) -> String {
        let name: String = self.app_name.chars().take(NAME_MAX).collect();
        format!("{name}: {text}")
    }

    /// The state at a commit that this cursor neither holds nor is on the way to.
    pub(super) fn left_behind(&self, commit: ObjectId) -> Picture {
        let next = self.way().or(self.head).or(self.held).filter(|next| *next != commit);
        let (word, text) = match next {
            Some(next) => {
                let short: String = next.to_string().chars().take(7).collect();
                (StatusWord::Superseded, format!("superseded by {short}"))
            }
            None => (StatusWord::Cancelled, "cancelled".to_owned()),
        };
        Picture { cursor: self.id.clone(), word, description: self.line(&text) }
    }
}

/// Reads a cursor; `None`: it was removed.
pub(super) async fn spot(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
) -> Result<Option<Spot>, StoreError> {
    let text = format!("{} where c.id = $1", columns());
    rows::one(connection, "cursor", &text, vec![cursor.clone().into()]).await
}

/// The other cursors of the same watch with a state at a commit, at most [`OTHERS_MAX`]: those with the worst
/// possible states first.
pub(super) async fn others(
    connection: &impl ConnectionTrait,
    spot: &Spot,
    commit: ObjectId,
) -> Result<Vec<Spot>, StoreError> {
    let text = format!(
        "{} where c.watch_id = $1 and c.id <> $2 and (c.held = $3 or o.target = $3 or (h.commit_id = $3
           and c.open_round is null and (c.state = 'blocked' or c.resync is not null)))
         order by c.state <> 'blocked', not exists (select 1 from dead_letter d where d.cursor_id = c.id
           and d.status in ('open', 'redrive_requested')), c.open_round is null, c.id limit {OTHERS_MAX}",
        columns()
    );
    let values = vec![spot.watch_id.clone().into(), spot.id.clone().into(), commit.into()];
    rows::all(connection, "cursor", &text, values).await
}

/// The beginning of a statement that reads spots, without conditions.
fn columns() -> String {
    format!(
        "select c.id, c.watch_id, w.app_id, w.repository_id, coalesce(s.moved_to, r.url) as url,
           w.status_host, w.status_context, c.held, a.name as app_name, c.state, w.state as watch_state,
           {SERVED} as is_served, c.open_round, c.resync, o.kind, o.target, o.position, o.total,
           h.commit_id as head
         from cursor c join watch w on w.id = c.watch_id join app a on a.id = w.app_id
         join source s on s.id = w.source_id join repository r on r.id = w.repository_id
         left join sink k on k.id = w.sink_id
         left join round o on o.cursor_id = c.id and o.number = c.open_round
         left join head h on h.source_id = w.source_id and h.ref_name = c.branch"
    )
}

/// The state of a cursor at a commit; `None`: it has none.
pub(super) async fn of(
    connection: &impl ConnectionTrait,
    spot: &Spot,
    commit: ObjectId,
) -> Result<Option<Picture>, StoreError> {
    let (word, text) = if spot.open_round.is_some() && spot.target == Some(commit) {
        let at = format!("{} of {}", spot.position.unwrap_or(0), spot.total.unwrap_or(0));
        match (spot.state, spot.kind) {
            (CursorState::Blocked, _) => (StatusWord::Blocked, format!("blocked at {at}")),
            _ if !spot.is_moving() => (StatusWord::Paused, format!("paused at {at}")),
            (_, Some(RoundKind::Redrive)) => (StatusWord::Pending, format!("{at} delivered again")),
            _ => (StatusWord::Pending, format!("{at} delivered")),
        }
    } else if spot.way() == Some(commit) {
        (StatusWord::Blocked, "blocked".to_owned())
    } else if spot.comes_again(commit) {
        match spot.is_moving() {
            true => (StatusWord::Pending, "is delivered again".to_owned()),
            false => (StatusWord::Paused, "paused".to_owned()),
        }
    } else if spot.held == Some(commit) {
        held(connection, spot, commit).await?
    } else {
        return Ok(None);
    };
    Ok(Some(Picture { cursor: spot.id.clone(), word, description: spot.line(&text) }))
}

/// The state at a commit that the app holds, by the changes that the app lacks. An open letter of an earlier
/// round counts as well: the app lacks that change until the letter is redriven or dismissed, or a later
/// change of its path is accepted.
async fn held(
    connection: &impl ConnectionTrait,
    spot: &Spot,
    commit: ObjectId,
) -> Result<(StatusWord, String), StoreError> {
    #[derive(FromQueryResult)]
    struct Brought {
        number: i64,
        total: i64,
    }
    #[derive(FromQueryResult)]
    struct Parked {
        own: i64,
        dismissed: i64,
        earlier: i64,
    }
    let text = "select r.number, r.total from round r where r.cursor_id = $1 and r.target = $2
                and r.kind <> 'redrive' order by r.number desc limit 1";
    let values = vec![spot.id.clone().into(), commit.into()];
    let brought: Option<Brought> = rows::one(connection, "round", text, values).await?;
    let text = "select count(case when d.round >= $2 and d.status <> 'dismissed' then 1 end) as own,
                       count(case when d.round >= $2 and d.status = 'dismissed' then 1 end) as dismissed,
                       count(case when d.round < $2 and d.status <> 'dismissed' then 1 end) as earlier
                from dead_letter d where d.cursor_id = $1
                and d.status in ('open', 'redrive_requested', 'dismissed')";
    let number = brought.as_ref().map_or(i64::MAX, |brought| brought.number);
    let values = vec![spot.id.clone().into(), number.into()];
    let parked: Option<Parked> = rows::one(connection, "dead_letter", text, values).await?;
    let Parked { own, dismissed, earlier } = parked.unwrap_or(Parked { own: 0, dismissed: 0, earlier: 0 });
    let mut line = match brought {
        None => "nothing to deliver".to_owned(),
        // Dismissed changes are not counted as delivered.
        Some(Brought { total, .. }) => format!("{} of {total} delivered", (total - own - dismissed).max(0)),
    };
    for (count, which) in [(own, "parked"), (dismissed, "dismissed"), (earlier, "parked earlier")] {
        if count > 0 {
            line.push_str(&format!(", {count} {which}"));
        }
    }
    Ok((if own + earlier > 0 { StatusWord::Parked } else { StatusWord::Success }, line))
}
