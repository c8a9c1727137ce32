//! Removes old entries, the oldest first: by their age, and by their number per app.

use std::time::Duration;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{ports::StoreError, time::Timestamp};
use tidings_entity::id::AppId;

use crate::database::rows::{self, signed};

/// The newest entry of an app that is removed.
#[derive(FromQueryResult)]
struct Cut {
    app_id: AppId,
    number: i64,
}

/// Removes entries beyond this age, or beyond this number per app, at most `limit`. Returns the number
/// removed. An entry that a wrong clock made old takes no younger one with it: the first young entry stays,
/// and all after it.
pub(crate) async fn prune(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    age: Duration,
    most: u64,
    limit: u64,
) -> Result<u64, StoreError> {
    let before = now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let text = "with old as (select app_id from entry where at < $1 order by at limit $3),
                cut as (
                  select l.app_id, coalesce((select min(e.number) from entry e
                      where e.app_id = l.app_id and e.at >= $1) - 1, l.last) as number
                    from ledger l where l.app_id in (select app_id from old)
                  union all select app_id, last - $2 from ledger where last - first + 1 > $2)
                select app_id, max(number) as number from cut group by app_id
                  having max(number) >= (select l.first from ledger l where l.app_id = cut.app_id)
                  order by app_id";
    let values = vec![before.into(), signed(most).into(), signed(limit).into()];
    let cuts: Vec<Cut> = rows::all(connection, "entry", text, values).await?;
    let mut left = limit;
    for Cut { app_id, number } in cuts {
        if left == 0 {
            break;
        }
        // A callback is not looked at until an entry is addressed to it. If none of the removed entries was,
        // their removal is no gap for it.
        let text = "update subscription set position = $2 where app_id = $1 and callback is not null
                      and position < $2 and not exists (select 1 from entry e
                        where e.recipient = subscription.id and e.number > subscription.position
                          and e.number <= $2)";
        rows::execute(connection, "subscription", text, vec![app_id.clone().into(), number.into()]).await?;
        // So that no other replica writes an entry between its removal and the new `first`.
        let text = "update ledger set first = first where app_id = $1";
        rows::execute(connection, "ledger", text, vec![app_id.clone().into()]).await?;
        let text = "delete from entry where app_id = $1 and number in
                    (select number from entry where app_id = $1 and number <= $2 order by number limit $3)";
        let values = vec![app_id.clone().into(), number.into(), signed(left).into()];
        left -= rows::execute(connection, "entry", text, values).await?;
        let text = "update ledger set first = coalesce(
                      (select min(number) from entry where app_id = $1), last + 1) where app_id = $1";
        rows::execute(connection, "ledger", text, vec![app_id.into()]).await?;
    }
    // Subjects that no longer exist get no further entries.
    let text = "delete from entry_fold where last_at < $1";
    rows::execute(connection, "entry_fold", text, vec![before.into()]).await?;
    Ok(limit - left)
}
