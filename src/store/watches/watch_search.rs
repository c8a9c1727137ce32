//! The fields of watches in SQL, and how watches are.

use tidings_actors::ports::WatchCondition;

use crate::{apps::sinks::SERVED, rows::filter::Column, upkeep::backlog::OWES};

/// Where a watch sends to the endpoint of its app, and that is none, its app pulls.
const SINK: &str = "coalesce((select x.kind from sink x where x.id = w.sink_id),
    (select case when x.base_url is null then 'pull' else 'endpoint' end from app x where x.id = w.app_id))";

/// The fields of a watch, as `w`, which stands there alone.
pub(crate) fn column(field: &str) -> Option<Column> {
    let of_app = "(select x.name from app x where x.id = w.app_id)";
    let url = "(select x.url from repository x where x.id = w.repository_id)";
    let error = "(select x.last_error from source x where x.id = w.source_id)";
    Some(match field {
        "app" => Column::texts(&["w.app_id", of_app]),
        "repository" => Column::texts(&["w.id", "w.name", "w.owner || '/' || w.name"]),
        "name" => Column::texts(&["w.owner || '/' || w.name"]),
        "url" => Column::texts(&[url]),
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
            format!(
                "(exists (select 1 from cursor c
               left join head h on h.source_id = w.source_id and h.ref_name = c.branch
               where c.watch_id = w.id and {OWES})
              or exists (select 1 from source f where f.id = w.source_id and f.last_error is not null))"
            )
        }
        WatchCondition::Blocked => {
            "exists (select 1 from cursor c where c.watch_id = w.id and c.state = 'blocked')".to_owned()
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
