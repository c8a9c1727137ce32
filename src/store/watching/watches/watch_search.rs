//! The fields of watches in SQL, and how watches are.

use tidings_actors::ports::WatchCondition;

use crate::{apps::sinks::SERVED, database::rows::filter::Column, upkeep::backlog::OWES};

/// If a watch uses the endpoint of its app, and the app has none, the app pulls.
const SINK: &str = "coalesce((select x.kind from sink x where x.id = w.sink_id),
    (select case when x.base_url is null then 'pull' else 'endpoint' end from app x where x.id = w.app_id))";

/// The columns of the filter's fields in a statement over `w`, the row of the watch.
pub(crate) fn column(field: &str) -> Option<Column> {
    let of_app = "(select x.name from app x where x.id = w.app_id)";
    let url = "(select x.url from repository x where x.id = w.repository_id)";
    let command = "(select x.address from sink x where x.id = w.sink_id and x.kind = 'tasks')";
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
        "command" => Column::texts(&[command]),
        "error" => Column::texts(&[error]),
        "condition" => {
            let words = WatchCondition::ALL.into_iter();
            Column::Words(words.map(|(word, condition)| (word, meaning(condition).into())).collect())
        }
        "since" | "until" => Column::Number("w.created_at"),
        _ => return None,
    })
}

/// Watches whose source could not be read by the last scan.
const OF_FAILING_SOURCES: &str = "select w.id from watch w where w.source_id in
                (select f.id from source f where f.last_error is not null)";

/// A condition over `w`, without a value.
pub(crate) fn meaning(condition: WatchCondition) -> String {
    match condition {
        // Sets, not checks of each watch: they begin at the few rows in trouble, each found through an index,
        // so that watches at rest cost nothing.
        WatchCondition::Behind => format!(
            "w.id in (select c.watch_id from cursor c join watch w on w.id = c.watch_id
                left join head h on h.source_id = w.source_id and h.ref_name = c.branch
                where c.behind_since is not null and {OWES}
              union {OF_FAILING_SOURCES})"
        ),
        WatchCondition::Blocked => {
            "w.id in (select c.watch_id from cursor c where c.state = 'blocked')".to_owned()
        }
        WatchCondition::Paused => "w.state = 'paused'".to_owned(),
        WatchCondition::Failing => format!(
            "w.id in ({OF_FAILING_SOURCES}
              union select w.id from watch w where w.source_id in
                (select b.id from breaker b where b.kind = 'source' and b.opened_at is not null)
              union select w.id from watch w where w.sink_id in
                (select b.id from breaker b where b.kind = 'endpoint' and b.opened_at is not null)
              union select w.id from watch w where w.sink_id is null and w.app_id in
                (select b.id from breaker b where b.kind = 'endpoint' and b.opened_at is not null)
              union select w.id from watch w where w.sink_id in
                (select k.id from sink k where k.disabled is not null)
              union select w.id from watch w join app a on a.id = w.app_id
                left join sink k on k.id = w.sink_id
                where w.app_id in (select d.id from app d where d.disabled is not null) and not {SERVED})"
        ),
    }
}
