//! Writes the ledgers: each change of state gets its entry in the same transaction, so that there is no entry
//! without its cause and no cause without its entry.
//!
//! **Numbers.** The number of an entry is one more than the last of its app, taken from the app's row of
//! `ledger`. That row stays locked until the transaction ends, so numbers appear in the order of commits and
//! a reader never misses one. A transaction that writes to several ledgers locks them in the order of their
//! apps.
//!
//! **Folding.** The first change of a state gets an entry at once. Further changes within a minute are
//! recorded in `entry_fold`, and [`tell_folded`] writes an entry for them: for counted things with their
//! number; for a state that changes back and forth with the state after a minute without a change.

mod names;
mod news;
pub(crate) mod read;
mod retention;
pub(crate) mod subscriptions;
pub(super) mod told;

use sea_orm::ConnectionTrait;
use serde_json::{Map, Value as Json, json};
use tidings_actors::{
    ports::{FOLD_MS, Origin, Random, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    entry, entry_fold,
    id::{AppId, CursorId, LedgerId, SubscriptionId, WatchId},
    kind::{EntryType, OriginKind},
};

use super::{
    Context,
    audit::Pending,
    database::{error::undecodable, rows},
};

pub(super) use names::{rename, restored};
pub(super) use news::News;
#[cfg(test)]
pub(super) use read::columns_of;
pub(super) use read::{between, ends, list, of_all};
pub(super) use retention::prune;

/// The most characters of one text in the data of an entry; a longer text is cut.
const TEXT_MAX: usize = 500;
/// The most arrays and objects within each other in a value that others wrote. Readers of JSON have a bound,
/// ours 128, and messages put the data of an entry into objects of their own.
const NESTED_MAX: usize = 64;

/// A change of state that an entry will report.
pub(super) struct Note {
    app: AppId,
    watch: Option<WatchId>,
    subject: String,
    /// Tells apart several states of one subject with the same topic; usually empty.
    part: String,
    entry_type: EntryType,
    origin: Origin,
    data: Map<String, Json>,
    /// The number of things that the note is about.
    count: u64,
    /// The callback that the entry is addressed to.
    recipient: Option<SubscriptionId>,
}

impl Note {
    pub(super) fn new(app: AppId, subject: &str, entry_type: EntryType, origin: Origin) -> Self {
        Self {
            app,
            watch: None,
            subject: subject.to_owned(),
            part: String::new(),
            entry_type,
            origin,
            data: Map::new(),
            count: 1,
            recipient: None,
        }
    }

    /// Addresses the entry to a callback.
    pub(super) fn addressed(self, recipient: SubscriptionId) -> Self {
        Self { recipient: Some(recipient), ..self }
    }

    pub(super) fn of_watch(self, watch: WatchId) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Distinguishes this note from others of the same type and subject.
    pub(super) fn apart(self, part: String) -> Self {
        Self { part, ..self }
    }

    /// Adds a fact; a missing fact is left out.
    pub(super) fn with(mut self, key: &str, fact: impl Into<Json>) -> Self {
        let fact = match fact.into() {
            Json::String(text) => Json::String(text.chars().take(TEXT_MAX).collect()),
            fact => fact,
        };
        if !fact.is_null() {
            self.data.insert(key.to_owned(), fact);
        }
        self
    }

    /// Adds a fact as it is, however long its texts are; a missing fact is left out.
    pub(super) fn whole(mut self, key: &str, fact: Option<Json>) -> Self {
        self.data.extend(fact.map(|fact| (key.to_owned(), fact)));
        self
    }

    fn topic(&self) -> String {
        format!("{}{}", topic(self.entry_type), self.part)
    }
}

/// JSON that others wrote, as a value for an entry or a message; `None`: it is nested too deeply to be read
/// there.
pub(super) fn value_of(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok().filter(|value| nested(value) <= NESTED_MAX)
}

fn nested(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(nested).max().unwrap_or(0),
        Json::Object(fields) => 1 + fields.values().map(nested).max().unwrap_or(0),
        _ => 0,
    }
}

/// The state of its subject that an entry of this type reports.
fn topic(entry_type: EntryType) -> &'static str {
    match entry_type {
        EntryType::SourceFailing | EntryType::SourceRecovered => "scan",
        EntryType::WatchBlocked | EntryType::WatchRecovered => "block",
        EntryType::WatchPaused | EntryType::WatchResumed => "pause",
        EntryType::LetterParked => "park",
        EntryType::SinkDisabled | EntryType::SinkEnabled => "use",
        EntryType::SinkOpened | EntryType::SinkClosed => "breaker",
        EntryType::RoundBegan | EntryType::RoundEnded => "round",
        EntryType::SubscriptionBlocked | EntryType::SubscriptionRecovered => "subscription",
        EntryType::SubscriptionSkipped => "skip",
        EntryType::SubscriptionGap => "gap",
        EntryType::MailSent | EntryType::MailFailed => "mail",
        EntryType::StatusEnded => "status",
        EntryType::TaskDead => "death",
        EntryType::TaskEnded => "end",
        EntryType::ScheduleMissed => "missed",
        EntryType::LedgerRestored => "restore",
    }
}

/// Whether the type reports an act and not a state: such an entry is never delayed or folded.
fn is_act(entry_type: EntryType) -> bool {
    matches!(
        entry_type,
        EntryType::RoundBegan
            | EntryType::RoundEnded
            | EntryType::SubscriptionSkipped
            | EntryType::SubscriptionGap
            | EntryType::MailSent
            | EntryType::MailFailed
            | EntryType::StatusEnded
            | EntryType::TaskDead
            | EntryType::TaskEnded
            | EntryType::ScheduleMissed
            | EntryType::LedgerRestored
    )
}

/// Whether the type counts things, and does not report a state.
fn adds_up(entry_type: EntryType) -> bool {
    entry_type == EntryType::LetterParked
}

/// The types after which a subject is as it should be: nothing more is to be remembered of it.
const AT_REST: &str = "('source.recovered', 'watch.recovered', 'watch.resumed', 'letter.parked',
    'sink.enabled', 'sink.closed', 'subscription.recovered')";

/// The origin of entries that a round of a cursor caused.
pub(super) fn commit(cursor: &CursorId, round: i64) -> Origin {
    Origin { kind: OriginKind::Commit, name: format!("{cursor}/{round}") }
}

/// The origin of entries that a Git host, an endpoint or a deadline caused.
pub(super) fn outside(name: &str) -> Origin {
    Origin { kind: OriginKind::Outside, name: name.to_owned() }
}

/// The origin of entries that a request caused: its caller; without a request, `otherwise` from outside.
pub(super) fn caller(otherwise: &str) -> Origin {
    match Pending::current() {
        Some(pending) => Origin { kind: OriginKind::Person, name: pending.actor.clone() },
        None => outside(otherwise),
    }
}

/// Writes the entries of a transaction.
pub(super) async fn write(
    connection: &impl ConnectionTrait,
    context: &Context,
    notes: Vec<Note>,
    at: Timestamp,
) -> Result<(), StoreError> {
    if !notes.is_empty() {
        context.news.mark();
    }
    write_unheard(connection, &*context.random, notes, at).await
}

/// Writes notes without notifying tails and subscriptions: there are none, or the caller notifies them.
pub(super) async fn write_unheard(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    mut notes: Vec<Note>,
    at: Timestamp,
) -> Result<(), StoreError> {
    notes.sort_by(|one, other| one.app.cmp(&other.app));
    let mut merged: Vec<Note> = Vec::with_capacity(notes.len());
    for note in notes {
        let same = |other: &&mut Note| {
            adds_up(note.entry_type)
                && (&other.app, &other.subject, other.topic()) == (&note.app, &note.subject, note.topic())
        };
        match merged.iter_mut().find(same) {
            Some(other) => other.count += note.count,
            None => merged.push(note),
        }
    }
    let is_alike =
        |one: &Note, other: &Note| one.app == other.app && is_act(one.entry_type) && is_act(other.entry_type);
    for notes in merged.chunk_by(is_alike) {
        match notes {
            [note] if !is_act(note.entry_type) => tell(connection, random, note, at).await?,
            acts => tell_acts(connection, random, acts, at).await?,
        }
    }
    Ok(())
}

/// Writes the acts of one app as entries, however many there are, with a fixed number of statements.
async fn tell_acts(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    acts: &[Note],
    at: Timestamp,
) -> Result<(), StoreError> {
    let Some(first) = acts.first() else { return Ok(()) };
    lock(connection, random, &first.app, at).await?;
    let count = i64::try_from(acts.len()).unwrap_or(i64::MAX);
    let text = "update ledger set last = last + $2 where app_id = $1 returning last";
    let values = vec![first.app.clone().into(), count.into()];
    let last = rows::number(connection, "ledger", text, values).await?;
    let row = |(number, note): (i64, &Note)| entry::Model {
        app_id: note.app.clone(),
        number,
        at: at.0,
        entry_type: note.entry_type,
        watch_id: note.watch.clone(),
        subject: note.subject.clone(),
        origin_kind: note.origin.kind,
        origin: note.origin.name.clone(),
        cause: None,
        data: Json::Object(note.data.clone()).to_string(),
        recipient: note.recipient.clone(),
    };
    rows::insert(connection, "entry", (last - count + 1..).zip(acts).map(row).collect()).await
}

/// Locks the ledger of an app until the transaction ends. Other replicas write to the ledger as well, so
/// reads of it, and of `entry_fold`, are valid only under this lock.
async fn lock(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    app: &AppId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "insert into ledger (app_id, name, first, last) values ($1, $2, 1, 0)
                on conflict (app_id) do update set last = ledger.last";
    let values = vec![app.clone().into(), LedgerId::new(random.ulid(at)).into()];
    rows::execute(connection, "ledger", text, values).await.map(drop)
}

async fn tell(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    note: &Note,
    at: Timestamp,
) -> Result<(), StoreError> {
    lock(connection, random, &note.app, at).await?;
    let topic = note.topic();
    let before = noted(connection, &note.app, &note.subject, &topic).await?;
    let data = Json::Object(note.data.clone()).to_string();
    let mut fold = entry_fold::Model {
        app_id: note.app.clone(),
        subject: note.subject.clone(),
        topic,
        told: note.entry_type,
        number: 0,
        told_at: at.0,
        last: note.entry_type,
        last_at: at.0,
        folded: rows::signed(note.count),
        watch_id: note.watch.clone(),
        origin_kind: note.origin.kind,
        origin: note.origin.name.clone(),
        data,
    };
    let Some(before) = before else {
        fold.number = append(connection, &fold, None, at).await?;
        fold.folded = 0;
        return rows::insert(connection, "entry_fold", vec![fold]).await;
    };
    if !adds_up(note.entry_type) && before.last == note.entry_type {
        return Ok(());
    }
    fold.folded += before.folded;
    // A clock that was set back must not delay an entry.
    let is_soon = (0..FOLD_MS).contains(&(at.0 - before.told_at));
    // A state that is again the state of the last entry gets no entry, however late.
    if is_soon || (!adds_up(note.entry_type) && before.told == note.entry_type) {
        (fold.told, fold.told_at, fold.number) = (before.told, before.told_at, before.number);
    } else {
        fold.number = append(connection, &fold, Some(before.number), at).await?;
        fold.folded = 0;
    }
    remember(connection, fold).await
}

/// The record of folded changes of one state of one subject.
async fn noted(
    connection: &impl ConnectionTrait,
    app: &AppId,
    subject: &str,
    topic: &str,
) -> Result<Option<entry_fold::Model>, StoreError> {
    let text = "select * from entry_fold where app_id = $1 and subject = $2 and topic = $3";
    let values = vec![app.clone().into(), subject.into(), topic.into()];
    rows::one(connection, "entry_fold", text, values).await
}

async fn remember(connection: &impl ConnectionTrait, fold: entry_fold::Model) -> Result<(), StoreError> {
    let text = "update entry_fold set told = $4, number = $5, told_at = $6, last = $7, last_at = $8,
                folded = $9, watch_id = $10, origin_kind = $11, origin = $12, data = $13
                where app_id = $1 and subject = $2 and topic = $3";
    let values = vec![
        fold.app_id.into(),
        fold.subject.into(),
        fold.topic.into(),
        fold.told.into(),
        fold.number.into(),
        fold.told_at.into(),
        fold.last.into(),
        fold.last_at.into(),
        fold.folded.into(),
        fold.watch_id.into(),
        fold.origin_kind.into(),
        fold.origin.into(),
        fold.data.into(),
    ];
    rows::execute(connection, "entry_fold", text, values).await.map(drop)
}

/// Writes the next entry of an app, whose ledger is locked. Returns its number. `folded` is the number of
/// things that the entry reports, or of changes of the state since the last entry.
async fn append(
    connection: &impl ConnectionTrait,
    fold: &entry_fold::Model,
    cause: Option<i64>,
    at: Timestamp,
) -> Result<i64, StoreError> {
    let mut data: Map<String, Json> =
        serde_json::from_str(&fold.data).map_err(|error| undecodable("entry_fold", error))?;
    if adds_up(fold.last) {
        data.insert("count".to_owned(), json!(fold.folded));
    } else if fold.folded > 1 {
        data.insert("changes".to_owned(), json!(fold.folded));
    }
    let text = "update ledger set last = last + 1 where app_id = $1 returning last";
    let number = rows::number(connection, "ledger", text, vec![fold.app_id.clone().into()]).await?;
    let row = entry::Model {
        app_id: fold.app_id.clone(),
        number,
        at: at.0,
        entry_type: fold.last,
        watch_id: fold.watch_id.clone(),
        subject: fold.subject.clone(),
        origin_kind: fold.origin_kind,
        origin: fold.origin.clone(),
        cause,
        data: Json::Object(data).to_string(),
        recipient: None,
    };
    rows::insert(connection, "entry", vec![row]).await?;
    Ok(number)
}

/// The states that are due, as [`is_due`] says. The condition on `folded` and the order are those of an
/// index.
pub(crate) const DUE_FOLDS: &str = "select * from entry_fold where folded > 0 and (last_at > $2
      or (case when told = 'letter.parked' then told_at else last_at end) <= $1)
    order by app_id, subject, topic limit $3";

/// Whether the folded changes of a state are due for an entry. Counts wait for their minute; a state waits
/// until it has been stable for a minute. A clock that was set back delays nothing.
fn is_due(fold: &entry_fold::Model, at: Timestamp) -> bool {
    let since = if adds_up(fold.told) { fold.told_at } else { fold.last_at };
    fold.folded > 0 && (fold.last_at > at.0 || since <= at.0 - FOLD_MS)
}

/// Writes the entries for changes that were folded a minute ago, for at most `limit` states. Returns the
/// number of states.
pub(super) async fn tell_folded(
    connection: &impl ConnectionTrait,
    context: &Context,
    at: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    let random = &*context.random;
    let minute_ago = at.0 - FOLD_MS;
    let values = vec![minute_ago.into(), at.0.into(), rows::signed(limit).into()];
    let found: Vec<entry_fold::Model> = rows::readable(connection, "entry_fold", DUE_FOLDS, values).await?;
    let states = found.len() as u64;
    if !found.is_empty() {
        context.news.mark();
    }
    for fold in found {
        lock(connection, random, &fold.app_id, at).await?;
        // Another replica may have added to it before the lock.
        let fold = noted(connection, &fold.app_id, &fold.subject, &fold.topic).await?;
        let Some(mut fold) = fold.filter(|fold| is_due(fold, at)) else { continue };
        if adds_up(fold.last) || fold.last != fold.told {
            fold.number = append(connection, &fold, Some(fold.number), at).await?;
            (fold.told, fold.told_at) = (fold.last, at.0);
        }
        fold.folded = 0;
        remember(connection, fold).await?;
    }
    rows::execute(connection, "entry_fold", &forget_folds(), vec![minute_ago.into()]).await?;
    Ok(states)
}

/// Removes states at rest, of which a subject that changes again has a new one. The condition on `folded` is
/// that of an index.
pub(crate) fn forget_folds() -> String {
    format!("delete from entry_fold where folded = 0 and last_at <= $1 and last in {AT_REST}")
}
