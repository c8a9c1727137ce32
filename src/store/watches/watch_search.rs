//! The fields of watches in SQL, and how watches are.

use tidings_actors::ports::WatchCondition;

use crate::{apps::sinks::SERVED, rows::filter::Column, upkeep::backlog::OWES};

/// If a watch uses the endpoint of its app, and the app has none, the app pulls.
const SINK: &str = "coalesce((select x.kind from sink x where x.id = w.sink_id),
    (select case when x.base_url is null then 'pull' else 'endpoint' end from app x where x.id = w.app_id))";

/// The columns of the filter's fields in a statement over `w`, the row of the watch.
pub(crate) fn column(field: &str) -> Option<Column> {
    let of_app = "(select x.name from app x where x.id = w.app_id)";
    let url = "(select x.url from repository x where x.id = w.repository_id)";
    let error = "(select x.last_error from source x where x.id = w.source_id)";
    Some(match field {
        "app" => Column::texts(&["w.app_id", of_app]),
        "repository" => Column::texts(&["w.id", "w.name", "w.owner || '/' || w.name"]),
        "name" => Column::texts(&["w.owner || '/' || w.name"]),
        "url" => Column::texts(&[url, "w.shown_url"]),
        "watch_name" => Column::texts(&["w.alias"]),
        "state" => Column::texts(&["w.state"]),
        "mode" => Column::texts(&["w.mode"]),
        "sink" => Column::texts(&[SINK]),
        "error" => Column::texts(&[error]),
        "condition" => {
            let words = WatchCondition::ALL.into_iter();
            Column::Words(words.map(|(word, condition)| (word, meaning(condition).into())).collect())
        }
        "since" | "until" => Column::Number("w.created_at"),
        _ => return None,
    })
}

/// A condition over `w`, without a value.
pub(crate) fn meaning(condition: WatchCondition) -> String {
    match condition {
        WatchCondition::Behind => {
            // A set, not a check of each watch: through the index of `behind_since`, watches at rest cost
            // nothing.
            format!(
                "(w.id in (select c.watch_id from cursor c join watch v on v.id = c.watch_id
               left join head h on h.source_id = v.source_id and h.ref_name = c.branch
               where c.behind_since is not null and {OWES})
              or w.source_id in (select f.id from source f where f.last_error is not null))"
            )
        }
        WatchCondition::Blocked => {
            // A set, for the same reason.
            "w.id in (select c.watch_id from cursor c where c.state = 'blocked')".to_owned()
        }
        WatchCondition::Paused => "w.state = 'paused'".to_owned(),
        WatchCondition::Failing => format!(
            "(exists (select 1 from source f where f.id = w.source_id and f.last_error is not null)
              or exists (select 1 from breaker b where b.opened_at is not null
                and ((b.kind = 'source' and b.id = w.source_id)
                   or (b.kind = 'endpoint' and b.id = coalesce(w.sink_id, w.app_id))))
              or exists (select 1 from app a left join sink k on k.id = w.sink_id
                         where a.id = w.app_id and not {SERVED}))"
        ),
    }
}
