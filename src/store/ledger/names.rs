//! New names for ledgers, where numbers of entries may be given a second time: the database was restored, or
//! lost entries. The name is part of the id of each entry, so no id of the new name means two entries, and a
//! follower with an id of the old name is told of a gap.

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{Origin, Random, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, LedgerId},
    kind::EntryType,
    ledger::Model as Ledger,
};

use super::{Note, caller, outside, write_unheard};
use crate::{Context, database::rows};

/// Most ledgers that one transaction renames.
const AT_ONCE: usize = 100;

/// Renames the ledgers of a restored database.
pub(crate) async fn restored(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    taken_at: Timestamp,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "select * from ledger order by app_id";
    let ledgers: Vec<Ledger> = rows::all(connection, "ledger", text, vec![]).await?;
    give(connection, random, ledgers, &outside("restore"), Some(taken_at), at).await
}

/// Renames the ledger of one app, or else the next ledgers behind the app `after`, because the database may
/// have lost entries. Returns the last of these apps if more may follow.
pub(crate) async fn rename(
    connection: &impl ConnectionTrait,
    context: &Context,
    of: Option<&AppId>,
    after: Option<&AppId>,
) -> Result<Option<AppId>, StoreError> {
    let (condition, app) = match of {
        Some(app) => ("app_id = $1", app.as_str()),
        None => ("app_id > $1", after.map_or("", AppId::as_str)),
    };
    let text = format!("select * from ledger where {condition} order by app_id limit {AT_ONCE}");
    let ledgers: Vec<Ledger> = rows::all(connection, "ledger", &text, vec![app.into()]).await?;
    let next = ledgers.last().filter(|_| ledgers.len() == AT_ONCE).map(|ledger| ledger.app_id.clone());
    context.news.mark();
    let at = context.clock.now();
    give(connection, &*context.random, ledgers, &caller("resync"), None, at).await?;
    Ok(next)
}

/// Gives these ledgers new names, and writes that into each.
async fn give(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    ledgers: Vec<Ledger>,
    origin: &Origin,
    taken_at: Option<Timestamp>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut notes = Vec::with_capacity(ledgers.len());
    for ledger in ledgers {
        let text = "update ledger set name = $1 where app_id = $2";
        let values = vec![LedgerId::new(random.ulid(at)).into(), ledger.app_id.clone().into()];
        rows::execute(connection, "ledger", text, values).await?;
        let subject = ledger.app_id.to_string();
        let note = Note::new(ledger.app_id, &subject, EntryType::LedgerRestored, origin.clone());
        let note = note.with("backup_taken_ms", taken_at.map(|at| at.0));
        notes.push(note.with("ledger_before", ledger.name.to_string()));
    }
    write_unheard(connection, random, notes, at).await
}
