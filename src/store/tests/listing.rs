//! How SQLite carries out lists.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::{
    model::filter::{Filter, sets},
    ports::{LedgerFilter, LetterFilter, RoundFilter, RoundPlace, WatchCondition},
};
use tidings_entity::{
    id::{CursorId, DeadLetterId},
    kind::LetterStatus,
};

use super::*;
use crate::{
    database::rows,
    lanes::{history, letters},
    ledger,
    watching::{statuses, watches::watch_search},
};

/// The steps of SQLite's plan for a statement.
async fn steps(connection: &impl ConnectionTrait, text: &str, values: Vec<Value>) -> Vec<String> {
    let plan = rows::mixed(connection, "test", &format!("explain query plan {text}"), values).await;
    plan.expect("a plan").iter().map(|row| row.try_get("", "detail").expect("a text")).collect()
}

/// However many watches there are that are well, none of them is looked at.
#[tokio::test]
async fn watches_in_trouble_are_found_through_indexes() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    for condition in [WatchCondition::Behind, WatchCondition::Blocked, WatchCondition::Failing] {
        let meant = watch_search::meaning(condition);
        let text = format!("select w.id from watch w where {meant} order by w.id limit 51");
        let steps = steps(&connection, &text, Vec::new()).await;
        let of_watches: Vec<_> = steps.iter().filter(|step| step.split(' ').nth(1) == Some("w")).collect();
        let is_sought = of_watches.iter().all(|step| step.starts_with("SEARCH w USING"));
        assert!(!of_watches.is_empty() && is_sought, "{condition:?}: {steps:#?}");
    }
}

/// However many watches go on, none of them is looked at.
#[tokio::test]
async fn paused_watches_are_found_through_an_index() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let meant = watch_search::meaning(WatchCondition::Paused);
    let text = format!("select w.* from watch w where w.id > $1 and {meant} order by w.id limit 51");
    let steps = steps(&connection, &text, vec!["".into()]).await;
    assert_eq!(steps, ["SEARCH w USING INDEX watch_paused (id>?)"]);
}

/// However many closed letters an app or a watch has, none of them is looked at for open ones.
#[tokio::test]
async fn open_letters_of_an_app_and_of_a_watch_are_found_through_indexes() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let (app, watch) = (new_app(1).id, WatchId::new(Ulid::from_parts(3, 1)));
    let before = DeadLetterId::new(Ulid::from_parts(9, 1));
    let open = LetterFilter::standing(LetterStatus::Open);
    let of_watch = LetterFilter { watch: Some(watch), ..open.clone() };
    for (filter, index) in [
        (open, "dead_letter_app_open (app_id=? AND id<?)"),
        (of_watch, "dead_letter_watch_open (watch_id=? AND id<?)"),
        (LetterFilter::default(), "dead_letter_app (app_id=? AND id<?)"),
    ] {
        let range = letters::older(&app, &filter, Some(&before), 500);
        let text =
            format!("select d.* from dead_letter d where {} order by d.id desc limit 500", range.condition);
        let steps = steps(&connection, &text, range.values).await;
        assert_eq!(steps, [format!("SEARCH d USING INDEX {index}")]);
    }
}

/// However many entries of other types a ledger has, none of them is looked at.
#[tokio::test]
async fn entries_of_one_type_are_found_through_an_index() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let query = Filter::parse("type:Task.dead", &sets::LEDGER, Timestamp(0)).expect("a filter");
    let filter = LedgerFilter { query: Some(query), ..LedgerFilter::default() };
    let backend = connection.get_database_backend();
    let (text, values) = ledger::read::listing(backend, &new_app(1).id, &filter, (Some(9), None), 51);
    let steps = steps(&connection, &text, values).await;
    let index = "SEARCH e USING INDEX entry_app_type (app_id=? AND type=? AND number<?)";
    assert!(steps.contains(&index.to_owned()), "{steps:#?}");
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
}

/// However many states ledgers remember, and however many statuses there are, the looks that come round every
/// few seconds read those that wait.
#[tokio::test]
async fn what_waits_is_found_through_an_index() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    for (text, places, index) in [
        (ledger::DUE_FOLDS.to_owned(), 3, "entry_fold_waiting"),
        (ledger::forget_folds(), 1, "entry_fold_rest"),
        (statuses::OVERDUE.to_owned(), 2, "commit_status_until"),
    ] {
        let steps = steps(&connection, &text, vec![Value::from(1_i64); places]).await;
        assert!(steps.len() == 1 && steps[0].contains(index), "{index}: {steps:#?}");
    }
}

/// However many rounds there are, none is read but by its key, and they are not sorted.
#[tokio::test]
async fn rounds_are_listed_by_their_key() {
    let (_store, home) = store().await;
    let connection = home.raw().await;
    let app = new_app(1).id;
    let cursor = CursorId::new(Ulid::from_parts(3, 1));
    for place in [
        RoundPlace::Newest,
        RoundPlace::At(5, cursor.clone()),
        RoundPlace::Before(5, cursor),
        RoundPlace::From(5),
    ] {
        let filter = RoundFilter { place, ..RoundFilter::default() };
        let (text, values) = history::listing(&app, &filter, 33);
        let steps = steps(&connection, &text, values).await;
        let of = |table: &str| -> Vec<&String> {
            steps.iter().filter(|step| step.split(' ').nth(1) == Some(table)).collect()
        };
        let (inner, outer) = (of("n"), of("r"));
        assert!(inner.len() >= 2 && outer.len() == 1, "{steps:#?}");
        assert!(
            inner.iter().all(|step| step.starts_with("SEARCH n") && step.contains("(cursor_id=?")),
            "{steps:#?}"
        );
        assert!(outer[0].contains("(cursor_id=? AND number=?)"), "{steps:#?}");
        let sorts = steps.iter().filter(|step| step.contains("TEMP B-TREE")).count();
        assert!(sorts <= 3, "cursors, and what is shown: {steps:#?}");
    }
}
